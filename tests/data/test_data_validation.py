"""Validation scores gold answers through the real reward."""

import pytest

from workflow_r1.data.errors import Reason, RowError
from workflow_r1.data.examples import Example
from workflow_r1.data.validation import validate_examples
from workflow_r1.reward import RewardWeights


def test_gold_answers_that_earn_the_full_reward_leave_nothing_to_report():
    rows = [Example("1", "q", ("the Beatles", "Beatles"), "nq"), Example("2", "q", ("São Paulo, 1.5 %",), "hotpotqa")]
    for weights in (None, RewardWeights(exact_match=0.5, f1=0.7)):
        report = validate_examples(rows, weights)
        assert report.rows == {"nq": 1, "hotpotqa": 1}
        assert report.faults == []


@pytest.mark.parametrize(
    ("golds", "fault", "reason"),
    [
        (("fine", "<think> tag"), None, "the gold answer '<think> tag' earns -1 of 1: Only plain text belongs"),
        ((" ",), None, "the gold answer ' ' earns -1 of 1: The answer is empty."),
        ((), RowError(Reason.UNANSWERABLE, "A+"), "it has no gold answer but punctuation and articles, "),
    ],
)
def test_a_row_that_cannot_be_won_is_reported_with_the_reason(golds, fault, reason):
    bad = Example("7", "q", golds, "nq", fault)
    report = validate_examples([Example("1", "q", ("x",), "nq"), bad])
    assert [fault.example for fault in report.faults] == [bad]
    assert report.faults[0].reason.startswith(reason)
