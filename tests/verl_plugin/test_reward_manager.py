"""The reward manager on what verl's agent-loop worker passes it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import support.faulty_endpoint as c
from omegaconf import OmegaConf
from support.agent_loop import score_as_verl_does
from support.qwen_like_tokenizer import qwen_like_tokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from workflow_r1.operators import Budget, OperatorSettings, OperatorUsage, RunCoordinator, RunLedger
from workflow_r1.reward import RewardError, exact_match_reward
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn
from workflow_r1.verl_plugin.reward_manager import WorkflowRewardManager

TRAJECTORY = Trajectory(
    question="who directed Velmora ?",
    turns=[
        Turn(text="broken", error="broken"),
        Turn(text="call", calls=[CallRecord(operator="Echo", input="x", output="y")]),
        Turn(text="answer", answer="Paul Anker"),
    ],
    ended_by=EndedBy.ANSWERED,
)
COLUMNS = {
    "data_source": "2wiki",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Anker", "P. Anker"]}},
    "raw_prompt": [{"role": "user", "content": TRAJECTORY.question}],
    "extra_info": {"worth": 3},
}


def recorded() -> dict[str, Any]:
    return {"trajectory": TRAJECTORY.model_dump(mode="json")}


async def scored(extra_fields: dict[str, Any], section: dict[str, Any] | None = None) -> AgentLoopOutput:
    rollout = {"actor_rollout_ref": {"rollout": {"response_length": 10}}}
    config = OmegaConf.create(rollout | ({} if section is None else {"workflow_r1": section}))
    output = AgentLoopOutput(
        prompt_ids=[3, 4], response_ids=[5, 6, 7], response_mask=[1, 0, 1], metrics=AgentLoopMetrics()
    )
    output.extra_fields = extra_fields
    manager = WorkflowRewardManager(config, qwen_like_tokenizer())
    await score_as_verl_does(output, manager, COLUMNS)
    if manager.operators is not None:
        await manager.operators.aclose()
    return output


async def judge_in(ledger: RunLedger) -> OperatorUsage:
    """The judge's usage, which reaches the ledger a moment after its call."""
    for _ in range(500):
        if ledger.total.operators:
            break
        await asyncio.sleep(0.01)
    [(name, usage)] = ledger.total.operators.items()
    assert name == "reward/Judge"
    return usage


async def test_the_reward_and_its_parts_are_those_of_the_recorded_turns():
    output = await scored(recorded())
    parts = exact_match_reward(TRAJECTORY, ["Anker", "P. Anker"])
    assert output.reward_score == parts.pop("reward") == -0.5
    assert output.extra_fields["reward_extra_info"] == parts
    assert parts == {"acc": 0.0, "f1": pytest.approx(2 / 3), "sub_em": 1.0}


async def test_a_shaped_ending_is_penalised_by_the_response_length():
    endings = {"answered": "shaped", "cache_length": 4}
    fields = recorded()
    fields["trajectory"]["turns"][-1]["tokens"] = (5, 8)  # of ten, of which the last four are the cache
    output = await scored(fields, {"endings": endings})
    assert output.reward_score == -0.5 - 0.5
    assert output.extra_fields["reward_extra_info"]["length_penalty"] == -0.5


OWN = """
async def later(trajectory, golds, row):
    assert (row["data_source"], golds, trajectory.answer) == ("2wiki", ["Anker", "P. Anker"], "Paul Anker")
    assert [message["content"] for message in row["raw_prompt"]] == [trajectory.question]
    assert type(row["raw_prompt"]) is list and "tool_extra_fields" not in row
    return {"reward": row["extra_info"]["worth"] / 2, "worth": row["extra_info"]["worth"]}
def number(trajectory): return -0.125
def broken(trajectory): return 1 / 0
"""


def own(tmp_path: Path, name: str) -> dict[str, Any]:
    (tmp_path / "own.py").write_text(OWN)
    return {"reward": {"function": f"{tmp_path / 'own.py'}:{name}"}}


@pytest.mark.parametrize(("name", "score", "parts"), [("later", 1.5, {"worth": 3.0}), ("number", -0.125, {})])
async def test_a_users_function_gets_the_rows_columns_and_verl_gets_all_that_it_returns(
    tmp_path: Path, name: str, score: float, parts: dict[str, float]
):
    output = await scored(recorded(), own(tmp_path, name))
    assert (output.reward_score, output.extra_fields["reward_extra_info"]) == (score, parts)
    assert output.response_mask == [1, 0, 1]


async def test_an_exception_in_it_raises_and_so_counts_as_a_lost_rollout(tmp_path: Path):
    with pytest.raises(RewardError, match=r"workflow_r1\.reward: .*own\.py:broken raised ZeroDivisionError"):
        await scored(recorded(), own(tmp_path, "broken"))


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[c.Endpoint]:
    endpoint = c.Endpoint()
    await endpoint.start()
    names = {"BASE_URL": endpoint.url, "API_KEY": c.KEY, "MODEL_NAME": "small"}
    for name, value in names.items():
        monkeypatch.setenv(f"OPERATOR_{name}", value)
    yield endpoint
    await endpoint.stop()


def judged(run_dir: Path) -> dict[str, Any]:
    function = "workflow_r1.operators.judge:judged_reward"
    return {"reward": {"function": function}, "run_dir": str(run_dir), "operators": {"cache": "off", "max_retries": 0}}


async def test_what_the_reward_asks_is_in_the_runs_ledger_apart_from_the_policys_calls(
    endpoint: c.Endpoint, tmp_path: Path
):
    endpoint.behaviour = c.reply("<verdict>correct</verdict>")
    limits = OperatorSettings.from_env().limits
    with RunCoordinator(tmp_path, limits, Budget(max_calls=1)) as coordinator:
        output = await scored(recorded(), judged(tmp_path))
        spent = await judge_in(coordinator.ledger)
        assert coordinator.ledger.exceeded()  # such a call counts against the budget as any other
    assert output.reward_score == 0.5  # right, less its malformed turn
    assert (spent.calls, spent.failed, spent.prompt_tokens) == (1, 0, 10)


async def test_a_judge_that_is_down_teaches_nothing_and_is_recorded(endpoint: c.Endpoint, tmp_path: Path):
    endpoint.behaviour = c.status(401, "no such key")
    with RunCoordinator(tmp_path, OperatorSettings.from_env().limits, Budget()) as coordinator:
        output = await scored(recorded(), judged(tmp_path))
        assert (await judge_in(coordinator.ledger)).failed == 1
    assert output.response_mask == [0, 0, 0]
    assert (output.reward_score, output.extra_fields["reward_extra_info"]) == (0.0, {})
    kept = Trajectory.model_validate(output.extra_fields["trajectory"])
    assert "401" in (kept.unscored or "")
    assert not kept.served


async def test_the_settings_are_the_configurations():
    section = {"reward": {"settings": {"f1": 0.3, "malformed": 0.0}}}
    output = await scored(recorded(), section)
    assert output.reward_score == pytest.approx(0.3 * 2 / 3)  # one word of two is a gold answer


async def test_what_turns_earn_is_recorded_with_them_and_is_no_metric_of_verls():
    section = {"reward": {"function": "workflow_r1.reward:turn_reward", "settings": {"call": -0.25, "f1": 0.75}}}
    output = await scored(recorded(), section)
    assert output.reward_score == pytest.approx(0.5 - 0.5 - 0.25)
    parts = output.extra_fields["reward_extra_info"]
    assert parts == {"acc": 0.0, "f1": pytest.approx(2 / 3), "sub_em": 1.0, "turns": -0.75}
    kept = Trajectory.model_validate(output.extra_fields["trajectory"])
    assert [turn.reward for turn in kept.turns] == [-0.5, -0.25, 0.0]


@pytest.mark.parametrize("extra_fields", [{}, {"trajectory": None}, {"turn_scores": []}])
async def test_a_row_of_another_agent_loop_is_refused_with_what_to_set(extra_fields: dict[str, Any]):
    with pytest.raises(ValueError, match=r"set agent_name in the data, or .*default_agent_loop, to workflow_r1_agent"):
        await scored(extra_fields)
