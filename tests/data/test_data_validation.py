"""Validation scores gold answers through the real reward."""

from pathlib import Path

import pytest

from workflow_r1.data.errors import Reason, RowError
from workflow_r1.data.examples import Example
from workflow_r1.data.validation import validate_examples
from workflow_r1.reward import Reward, RewardSettings


async def test_gold_answers_that_win_leave_nothing_to_report():
    rows = [Example("1", "q", ("the Beatles", "Beatles"), "nq"), Example("2", "q", ("São Paulo, 1.5 %",), "hotpotqa")]
    for settings in ({}, {"exact_match": 0.5, "f1": 0.7}):
        report = await validate_examples(rows, Reward(RewardSettings(settings=settings)))
        assert report.rows == {"nq": 1, "hotpotqa": 1}
        assert report.faults == []
    assert report.means("nq") == {"acc": 1.0, "f1": 1.0, "sub_em": 1.0, "reward": 1.2}


@pytest.mark.parametrize(
    ("golds", "fault", "reason"),
    [
        (
            ("fine", "<think> tag"),
            None,
            "the gold answer '<think> tag' earns acc 0, f1 0, sub_em 0, reward -1: Only plain text belongs",
        ),
        ((" ",), None, "the gold answer ' ' earns acc 0, f1 0, sub_em 0, reward -1: The answer is empty."),
        ((), RowError(Reason.UNANSWERABLE, "A+"), "it has no gold answer but punctuation and articles, "),
    ],
)
async def test_a_row_that_cannot_be_won_is_reported_with_the_reason(golds, fault, reason):
    bad = Example("7", "q", golds, "nq", fault)
    report = await validate_examples([Example("1", "q", ("x",), "nq"), bad], Reward())
    assert [fault.example for fault in report.faults] == [bad]
    assert report.faults[0].reason.startswith(reason)


async def test_without_an_acc_a_gold_answer_has_to_earn_more_than_none(tmp_path: Path):
    (tmp_path / "r.py").write_text(
        "def reward(trajectory, row): return -len(trajectory.turns[0].text) * row['extra_info']['weight']\n"
    )
    reward = Reward(RewardSettings(function=f"{tmp_path / 'r.py'}:reward"))
    weights = {"a": -1, "b": 1}
    rows = [Example(name, "q", ("gold",), "nq", extra_info={"weight": weight}) for name, weight in weights.items()]
    report = await validate_examples(rows, reward)
    assert [fault.example.id for fault in report.faults] == ["b"]
    assert report.faults[0].reason == "the gold answer 'gold' earns reward -46"
    assert report.means("nq") == {"reward": 0.0}
