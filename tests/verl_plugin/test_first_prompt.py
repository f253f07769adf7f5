"""Prompt and pool cannot drift: what a policy first reads comes from the operators and limits of its run."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support.agent_loop import BareAgentLoop, FakeServer
from support.qwen_like_tokenizer import qwen_like_tokenizer

from workflow_r1.config import WorkflowConfig
from workflow_r1.evaluation.checkpoint_session import CheckpointSession
from workflow_r1.evaluation.config import PolicySettings, RunSettings
from workflow_r1.evaluation.endpoint import PolicyEndpoint
from workflow_r1.evaluation.session import PolicySampling
from workflow_r1.evaluation.systems import Policy
from workflow_r1.policy.chat_format import read_chat_format
from workflow_r1.verl_plugin.session import PromptTooLongError

ANSWER = "<think>so</think><answer>Anker</answer>"
QUESTION = "who directed Velmora ?"
OWN = """
from workflow_r1.operators import InputField, OperatorSpec
Look = OperatorSpec(name='Look', use_when='lost at sea', inputs=(InputField(name='at'),), prompt='{at}')
"""


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BASE_URL", "API_KEY", "MODEL_NAME"):
        monkeypatch.setenv(f"OPERATOR_{name}", "http://127.0.0.1:9/v1")
    (tmp_path / "look_of_this_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


async def first_prompt(section: dict[str, Any], row: list[dict[str, str]], prompt_length: int = 8192) -> list[int]:
    """The tokens that the first request of a trajectory carries, under this `workflow_r1` section."""
    tokenizer = qwen_like_tokenizer()
    server = FakeServer(tokenizer, [ANSWER])
    loop = BareAgentLoop(tokenizer, server, response_length=64)
    loop.rollout_config.prompt_length = prompt_length
    loop.workflow_config = WorkflowConfig.parse(OmegaConf.create({"workflow_r1": section}))
    await loop.run({}, raw_prompt=row)
    return server.requests[0]["prompt_ids"]


def asked(question: str = QUESTION) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


async def test_an_operator_added_by_configuration_is_in_the_next_rollouts_prompt() -> None:
    tokenizer = qwen_like_tokenizer()
    before = tokenizer.decode(await first_prompt({}, asked()))
    after = tokenizer.decode(await first_prompt({"pool": {"modules": ["look_of_this_test"]}}, asked()))
    assert "Look" not in before
    assert "Look: use it when lost at sea." in after


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"max_calls": 3}, "You have 3 operator calls"), ({"max_parallel_calls": 4}, "up to 4 <tool> blocks")],
)
async def test_a_limit_of_the_run_is_the_limit_that_the_policy_is_told(limits: dict, said: str) -> None:
    assert said in qwen_like_tokenizer().decode(await first_prompt({"limits": limits}, asked()))


@pytest.mark.parametrize("kind", [PolicySettings, RunSettings])
@pytest.mark.parametrize(
    "section",
    [
        {},
        {"prompt": "none"},
        {"pool": {"names": ["Review", "Revise"], "search": True}, "operators": {"search": {"index": None}}},
        {"pool": {"modules": ["look_of_this_test"]}, "limits": {"max_calls": 2, "max_parallel_calls": 2}},
    ],
)
async def test_training_and_evaluation_start_from_the_same_tokens(
    section: dict, kind: type[PolicySettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_URL", "http://127.0.0.1:9/search")
    monkeypatch.setenv("SEARCH_API_KEY", "none")
    benchmarks = {"benchmarks": ["nq"]} if kind is RunSettings else {}
    settings = kind.model_validate({"policy": "http://127.0.0.1:9/v1", **benchmarks, **section})
    chat = read_chat_format(qwen_like_tokenizer(), {})
    endpoint, sampling = PolicyEndpoint("http://127.0.0.1:9/v1"), PolicySampling(0.0, 1.0, 64)
    policy = Policy(endpoint, settings.operator_pool(), settings.policy_prompt(), sampling, settings.limits, chat)
    session = policy.session(QUESTION, seed=0)
    assert isinstance(session, CheckpointSession)
    assert session.prompt_ids == await first_prompt(section, asked())


async def test_a_row_with_a_system_message_of_its_own_keeps_it() -> None:
    row = [{"role": "system", "content": "Be brief."}, *asked()]
    assert await first_prompt({}, row) == read_chat_format(qwen_like_tokenizer(), {}).prompt_ids(row)


async def test_too_long_a_prompt_is_refused_and_not_cut() -> None:
    needed = len(await first_prompt({}, asked()))
    assert len(await first_prompt({}, asked(), needed)) == needed
    with pytest.raises(PromptTooLongError, match=r"more than data\.max_prompt_length=.*: raise it\."):
        await first_prompt({}, asked(), needed - 1)
