import pytest

from workflow_r1.metrics import workflow_metrics
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn


def test_a_batch_is_summed_up_per_question_per_turn_and_as_fractions():
    call = CallRecord(operator="Review", input="i", output="o", prompt_tokens=10, completion_tokens=2)
    lost = CallRecord(operator="Revise", input="i", output="gone", failed=True)
    batch = [
        Trajectory(
            question="a",
            turns=[
                Turn(text="", calls=[call], generate_seconds=1.0, operator_seconds=3.0),
                Turn(text="", answer="x", generate_seconds=2.0),
            ],
            ended_by=EndedBy.ANSWERED,
            reward={"reward": 1.0, "acc": 1.0},
        ),
        Trajectory(
            question="b",
            turns=[
                Turn(text="", error="broken", generate_seconds=3.0),
                Turn(text="", calls=[lost], generate_seconds=4.0, operator_seconds=1.0),
            ],
            ended_by=EndedBy.OPERATOR_FAILURE,
            reward={"reward": 0.0, "acc": 0.0},
        ),
    ]
    metrics = workflow_metrics(batch)
    assert metrics["workflow/turns/mean"] == 2.0
    assert metrics["workflow/calls/mean"] == 1.0
    assert metrics["workflow/calls/Review"] == metrics["workflow/calls/Revise"] == 0.5
    assert metrics["workflow/operator_tokens/mean"] == 6.0
    assert metrics["workflow/failed_calls/mean"] == 0.5
    assert metrics["workflow/malformed"] == 0.5
    assert metrics["workflow/generate_seconds/mean"] == pytest.approx(2.5)
    assert metrics["workflow/generate_seconds/max"] == 4.0
    assert metrics["workflow/operator_seconds/max"] == 3.0
    assert metrics["workflow/ended_by/answered"] == metrics["workflow/ended_by/operator_failure"] == 0.5
    assert metrics["reward/reward"] == metrics["reward/acc"] == 1.0  # of what was served


def test_whatever_a_reward_returns_is_a_metric_over_those_that_have_it():
    batch = [
        Trajectory(question="a", ended_by=EndedBy.ANSWERED, reward={"reward": 1.0, "style": 0.5, "calls": 7.0}),
        Trajectory(question="b", ended_by=EndedBy.CALL_LIMIT, reward={"reward": -1.0, "acc": 0.0}),
        Trajectory(question="c", ended_by=EndedBy.ANSWERED, unscored="The judge is down."),
        Trajectory(question="d", ended_by=EndedBy.ANSWERED, reward={"reward": 0.5, "acc": 1.0}),
    ]
    metrics = workflow_metrics(batch)
    rewards = {name: value for name, value in metrics.items() if name.startswith("reward/")}
    assert rewards == {
        "reward/acc": 0.5,
        "reward/reward": pytest.approx(1 / 6),
        "reward/style": 0.5,
        "reward/calls": 7.0,
    }
    assert next(iter(rewards)) == "reward/acc"
    assert (metrics["workflow/unscored"], metrics["workflow/ended_by/call_limit"]) == (0.25, 0.25)
    assert metrics["workflow/calls/mean"] == 0


def test_an_empty_batch_has_no_metrics():
    assert workflow_metrics([]) == {}


def test_what_was_not_served_is_no_score_of_zero():
    lost = Trajectory(question="a", ended_by=EndedBy.OPERATOR_FAILURE, reward={"reward": 0.0, "acc": 0.0})
    metrics = workflow_metrics([lost])
    assert metrics["workflow/ended_by/operator_failure"] == 1.0
    assert not {"reward/reward", "reward/acc", "reward/f1"} & metrics.keys()
