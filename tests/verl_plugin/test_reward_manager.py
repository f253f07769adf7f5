"""The reward manager on what verl's agent-loop worker passes it."""

from typing import Any

import pytest
from omegaconf import OmegaConf
from support.agent_loop import score_as_verl_does
from support.qwen_like_tokenizer import qwen_like_tokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from workflow_r1.reward import exact_match_reward
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
}


async def scored(extra_fields: dict[str, Any], section: dict[str, Any] | None = None) -> AgentLoopOutput:
    config = OmegaConf.create({} if section is None else {"workflow_r1": section})
    output = AgentLoopOutput(
        prompt_ids=[3, 4], response_ids=[5, 6, 7], response_mask=[1, 0, 1], metrics=AgentLoopMetrics()
    )
    output.extra_fields = extra_fields
    return await score_as_verl_does(output, WorkflowRewardManager(config, qwen_like_tokenizer()), COLUMNS)


async def test_the_reward_and_its_parts_are_those_of_the_recorded_turns():
    output = await scored({"trajectory": TRAJECTORY.model_dump(mode="json")})
    parts = exact_match_reward(TRAJECTORY, ["Anker", "P. Anker"])
    assert output.reward_score == parts.pop("reward") == -0.5
    assert output.extra_fields["reward_extra_info"] == parts
    assert parts == {"acc": 0.0, "f1": pytest.approx(2 / 3), "sub_em": 1.0}


async def test_the_settings_are_the_configurations():
    section = {"reward": {"settings": {"f1": 0.3, "malformed": 0.0}}}
    output = await scored({"trajectory": TRAJECTORY.model_dump(mode="json")}, section)
    assert output.reward_score == pytest.approx(0.3 * 2 / 3)  # one word of two is a gold answer


@pytest.mark.parametrize("extra_fields", [{}, {"trajectory": None}, {"turn_scores": []}])
async def test_a_row_of_another_agent_loop_is_refused_with_what_to_set(extra_fields: dict[str, Any]):
    with pytest.raises(ValueError, match=r"set agent_name in the data, or .*default_agent_loop, to workflow_r1_agent"):
        await scored(extra_fields)
