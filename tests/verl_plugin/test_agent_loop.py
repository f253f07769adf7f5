"""The agent loop as verl builds it from the configuration, and what it hands to the trainer."""

import asyncio
from collections.abc import Sequence
from typing import Any

import hydra
import pytest
import torch
from support.agent_loop import BareAgentLoop, FakeServer
from support.chat_templates import CHATML, KINDS, tokenizer_of
from support.qwen_like_tokenizer import qwen_like_tokenizer
from support.sessions import QUESTION, new_session, play, response_ids
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
)
from verl.utils.dataset.rl_dataset import RLHFDataset

from workflow_r1.config import WorkflowConfig
from workflow_r1.operators import OperatorResult
from workflow_r1.rollout import RolloutLimits
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, compose_recipe, with_our_settings
from workflow_r1.trajectory import EndedBy, Trajectory, Turn
from workflow_r1.verl_plugin.agent_loop import NoTurnError, WorkflowAgentLoop
from workflow_r1.verl_plugin.session import VerlSession


async def built_by_verl(recipe: str, overrides: Sequence[str] = (), tokenizer: Any = None) -> Any:
    """The recipe's default agent loop, put together as `AgentLoopWorker._run_agent_loop` does it."""
    config = compose_recipe(recipe, overrides)
    return hydra.utils.instantiate(
        config=_agent_loop_registry[config.actor_rollout_ref.rollout.agent.default_agent_loop],
        trainer_config=DictConfigWrap(config=config),
        server_manager=None,
        tokenizer=tokenizer or qwen_like_tokenizer(),
        processor=None,
        hf_model_type="qwen2",
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        tools=ToolListWrap([]),
    )


async def test_a_tokenizer_of_another_family_than_the_models_type_is_taken():
    """As DeepSeek-R1's on Qwen's shape, for which the builder that verl chooses does not find its tokens."""
    vocabulary = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    foreign = PreTrainedTokenizerFast(tokenizer_object=vocabulary, eos_token="</s>")
    assert type(await built_by_verl(REFERENCE, tokenizer=foreign)) is WorkflowAgentLoop


async def test_what_the_chat_template_is_told_reaches_the_prompt():
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.chat_template = "{{ mood }}" + CHATML
    loop = await built_by_verl(REFERENCE, ["+data.apply_chat_template_kwargs.mood=brief"], tokenizer)
    assert tokenizer.decode(VerlSession(loop, QUESTION, {}, 0).prompt_ids).startswith("brief")


async def test_the_recipes_limits_are_the_rollouts():
    loop = await built_by_verl(REFERENCE)
    assert type(loop) is WorkflowAgentLoop
    assert loop.workflow_config.limits == RolloutLimits(max_turns=21, max_calls=20, max_observation_length=1024)
    embedded = await built_by_verl(EMBEDDED)
    assert embedded.workflow_config.limits == RolloutLimits(max_turns=8, max_calls=8, max_observation_length=64)


async def test_every_limit_is_a_setting():
    values = {"max_turns": 7, "max_calls": 4, "max_parallel_calls": 3, "max_malformed_turns": 0}
    values |= {
        "max_turn_length": 99,
        "max_seconds": 0.5,
        "max_observation_length": 77,
        "truncate_side": "left",
        "keep_failed": True,
    }
    assert values.keys() == RolloutLimits.model_fields.keys()
    settings = with_our_settings([f"workflow_r1.limits.{name}={value}" for name, value in values.items()])
    assert (await built_by_verl(REFERENCE, settings)).workflow_config.limits == RolloutLimits(**values)


CALL = "<think>who?</think><tool>AnswerGenerate: who directed Velmora ?</tool>"
ANSWER = "<think>so</think><answer>Anker</answer>"


@pytest.mark.parametrize("ended_by", EndedBy)
@pytest.mark.parametrize("endings", [{}, {"deadline": "trained", "malformed": "masked", "answered": "masked"}])
async def test_only_what_ended_in_a_masked_way_stays_out_of_the_loss(ended_by: EndedBy, endings: dict[str, Any]):
    session, server = await new_session(qwen_like_tokenizer(), [CALL, ANSWER])
    await play(session, ["<info>Anker</info>"])
    session._loop.workflow_config = WorkflowConfig(endings=endings)
    output = session._loop._output(session, Trajectory(question="q", ended_by=ended_by))
    assert sum(session.response_mask) == len(server.sampled)
    masked = {"operator_failure", "malformed", "answered"} if endings else {"operator_failure", "deadline"}
    if ended_by.value in masked:
        assert output.response_mask == [0] * len(session.response_mask)
    else:
        assert output.response_mask == session.response_mask


@pytest.mark.parametrize("by_turn", [(-0.1, 0.3), (None, None), (0.0, -0.1)])
async def test_verl_gets_what_a_turn_earned_on_the_turns_last_token_and_the_rest_on_the_last(by_turn: tuple):
    session, _ = await new_session(qwen_like_tokenizer(), [CALL, ANSWER])
    await play(session, ["<info>Anker</info>"])
    first = session.response_mask.index(0)
    turns = [Turn(text=CALL, tokens=(0, first)), Turn(text=ANSWER, tokens=(first + 9, len(session.response_mask)))]
    output = session._loop._output(session, Trajectory(question="q", turns=turns, ended_by=EndedBy.ANSWERED))
    assert "rm_scores" not in output.as_dict()  # nobody has scored it yet
    for turn, earned in zip(output.extra_fields["trajectory"]["turns"], by_turn, strict=True):
        turn["reward"] = earned
    outcome, own = 1.0, [earned or 0.0 for earned in by_turn]
    output.reward_score = outcome + sum(own)
    scores = output.as_dict()["rm_scores"]
    expected = torch.zeros(len(session.response_mask))
    expected[first - 1], expected[-1] = own[0], outcome + own[1]
    torch.testing.assert_close(scores, expected)
    assert float(scores.sum()) == pytest.approx(output.reward_score)


class HangingServer(FakeServer):
    async def generate(self, **request: Any) -> Any:
        if len(self.requests) == len(self.samples):
            await asyncio.sleep(60)
        return await super().generate(**request)


class Echo:
    async def call(self, name: str, text: str, trajectory: str = "") -> OperatorResult:
        return OperatorResult(name, text)


async def run_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch, samples: list[str], max_calls: int
) -> AgentLoopOutput:
    """With a server that hangs after its samples."""
    monkeypatch.setattr("workflow_r1.verl_plugin.agent_loop._operator_pool", lambda _: Echo())
    tokenizer = qwen_like_tokenizer()
    limits = RolloutLimits(max_seconds=0.2, max_parallel_calls=max_calls)
    loop = BareAgentLoop(tokenizer, HangingServer(tokenizer, samples), 500, limits)
    return await loop.run({"logprobs": True}, raw_prompt=QUESTION)


@pytest.mark.parametrize("max_calls", [1, 2])  # with two, the hanging request goes on in a turn that has begun
async def test_at_the_deadline_the_trainer_gets_whole_turns(monkeypatch: pytest.MonkeyPatch, max_calls: int):
    samples = [CALL] if max_calls == 1 else [CALL, "<|im_end|>", CALL]
    output = await run_until_the_deadline(monkeypatch, samples, max_calls)
    trajectory = Trajectory.model_validate(output.extra_fields["trajectory"])
    assert trajectory.ended_by is EndedBy.DEADLINE
    assert [turn.text for turn in trajectory.turns] == [CALL]
    tokenizer, (_, end) = qwen_like_tokenizer(), trajectory.turns[0].tokens
    assert tokenizer.decode(output.response_ids[:end]).removesuffix("<|im_end|>") == CALL
    assert tokenizer.decode(output.response_ids[end:]).count("assistant") == 1  # the observation, and no token beyond
    assert len(output.response_ids) == len(output.response_mask) == len(output.response_logprobs)
    assert not any(output.response_mask)


async def test_a_deadline_before_the_first_turn_is_a_lost_rollout_that_says_so(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(NoTurnError, match=r"workflow_r1\.limits\.max_seconds=0\.2 came before the first turn"):
        await run_until_the_deadline(monkeypatch, [], max_calls=1)


async def test_the_trainer_gets_the_sessions_tokens_and_the_trajectory():
    session, _ = await new_session(qwen_like_tokenizer(), [CALL, ANSWER])
    await play(session, ["<info>Anker</info>"])
    turn = Turn(text=CALL, generate_seconds=2.0, operator_seconds=0.5)
    trajectory = Trajectory(question="q", turns=[turn, turn], ended_by=EndedBy.TURN_LIMIT)
    output = session._loop._output(session, trajectory)
    assert output.prompt_ids == session.prompt_ids
    assert output.response_ids == response_ids(session)
    assert output.response_logprobs == session.response_logprobs
    assert Trajectory.model_validate(output.extra_fields["trajectory"]) == trajectory
    assert output.extra_fields["max_global_steps"] == 2
    assert (output.num_turns, output.metrics.generate_sequences, output.metrics.tool_calls) == (4, 4.0, 1.0)
