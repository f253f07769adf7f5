"""What passes the checks before a run earns what it should, through the reward as verl's worker asks for it."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from support.agent_loop import score_as_verl_does
from support.qwen_like_tokenizer import qwen_like_tokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from workflow_r1.data.errors import RowError
from workflow_r1.data.layouts import read_examples
from workflow_r1.data.sources import SourceFile
from workflow_r1.data.verl_rows import check_row, row_golds
from workflow_r1.protocol import parse_turn
from workflow_r1.trajectory import EndedBy, Trajectory, Turn
from workflow_r1.verl_plugin.reward_manager import WorkflowRewardManager

PROMPT = [{"role": "user", "content": "who?"}]
MANAGER = WorkflowRewardManager(OmegaConf.create({}), qwen_like_tokenizer())

words = st.sampled_from(
    ["Paris", "the", "A+", "*", "[1]", "['a' 'b']", "x<y", "</answer>", "\u6771\u4eac", "\ud800", " "]
)
scalars = words | st.text(max_size=6) | st.integers(-3000, 3000) | st.floats() | st.none() | st.booleans()
values = (
    scalars | st.lists(scalars | st.lists(words, max_size=2), max_size=4) | st.dictionaries(words, scalars, max_size=2)
)


def row_of(ground_truth):
    reward_model = {"style": "rule", "ground_truth": ground_truth}
    return {"data_source": "mine", "prompt": PROMPT, "reward_model": reward_model}


def reward(row, answer: str) -> float:
    """Of a policy that gives this answer in its first turn."""
    turn = parse_turn(f"<think>It is known.</think><answer>{answer}</answer>")
    trajectory = Trajectory(
        question="who?",
        turns=[Turn(text="", think=turn.think, answer=turn.answer, error=turn.error)],
        ended_by=EndedBy.MALFORMED if turn.answer is None else EndedBy.ANSWERED,
    )
    output = AgentLoopOutput(prompt_ids=[1], response_ids=[2], response_mask=[1], metrics=AgentLoopMetrics())
    output.extra_fields = {"trajectory": trajectory.model_dump(mode="json")}
    columns = {"data_source": "mine", "reward_model": row["reward_model"], "raw_prompt": PROMPT}
    return asyncio.run(score_as_verl_does(output, MANAGER, columns)).reward_score


@pytest.mark.parametrize("ground_truth", ["Paris", ["Paris"], {"target": "Paris"}, {"target": ["Paris", "Lutetia"]}])
def test_a_text_is_one_answer_and_not_its_letters(ground_truth):
    assert reward(row_of(ground_truth), "Paris") == 1.0
    assert reward(row_of(ground_truth), "p") == 0.0


@settings(max_examples=100, deadline=None)
@given(values, st.booleans())
def test_whatever_passes_the_checks_earns_the_full_reward_with_each_of_its_answers(value, nested):
    row = row_of({"target": value} if nested else value)
    try:
        check_row(row)
        golds = row_golds(row["reward_model"])
    except RowError:
        assume(False)
    assert golds
    assert [reward(row, gold) for gold in golds] == [1.0] * len(golds)


@settings(max_examples=60, deadline=None)
@given(values)
def test_training_prepare_and_validate_read_the_same_answers_of_a_row(tmp_path_factory, value):
    row = row_of({"target": value})
    layouts = [row, {"question": "who?", "golden_answers": value}, {"question": "who?", "answer": value}]
    path: Path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    found = []
    for layout in layouts:
        path.write_text(json.dumps(layout))
        [example] = read_examples([SourceFile(str(path), "mine")])
        found.append(example.golds)
    try:
        trained_on = row_golds(json.loads(json.dumps(row["reward_model"])))
    except RowError:
        trained_on = ()
    assert found == [trained_on] * 3
