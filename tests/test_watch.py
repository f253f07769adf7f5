"""What the watch says of runs that go well, of runs that go wrong, and of those that cannot be told."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import ValidationError

from workflow_r1.watch import CONDITIONS, Watch, WatchSettings

SAVED = Path(__file__).parents[1] / "benchmarks" / "results" / "embedded_learning.json"
HEALTHY = {
    "reward/reward": 0.5,
    "actor/entropy": 0.5,
    "workflow/malformed": 0.125,
    "workflow/unscored": 0.0,
    "mismatch/eff_sample_size": 0.75,
    "actor/grad_norm": 2.0,
    "training/rollout_probs_diff_mean": 0.0078125,
    "actor/pg_clipfrac": 0.125,
}
BOUNDS = {  # for each condition the last values that are well, and the first that are not, after six healthy steps
    "reward_drop": ([0.25] * 5, [0.25] * 4 + [0.249]),
    "reward_stuck": ([0.25] * 4, [0.25] * 5),
    "entropy_collapse": ([0.0625] * 5, [0.0625] * 4 + [0.0624]),
    "entropy_explosion": ([1.0] * 5, [1.0] * 4 + [1.001]),
    "malformed": ([0.5] * 5, [0.5] * 4 + [0.501]),
    "unserved": ([0.25] * 5, [0.25] * 4 + [0.251]),
    "sample_size": ([0.5] * 5, [0.5] * 4 + [0.499]),
    "gradient_norm": ([16.0], [16.1]),
    "mismatch": ([0.0625] * 5, [0.0625] * 4 + [0.0626]),
    "clipped": ([0.5] * 5, [0.5] * 4 + [0.501]),
}
LIMITS = {"reward_drop": 0.25, "entropy_collapse": 0.125, "entropy_explosion": 2.0, "gradient_norm": 8.0}
LIMITS["mismatch"] = 0.0625


def series(name: str, values: Sequence[float]) -> list[dict[str, float]]:
    return [{CONDITIONS[name].metric: value} for value in values]


def met(settings: WatchSettings, steps: Sequence[dict[str, float]]) -> list[set[str]]:
    """The conditions that each step meets."""
    watch = Watch(settings)
    return [{name for name, sentence in watch.judge(step)[0].items() if sentence} for step in steps]


def saved_run(result: dict) -> list[dict[str, float]]:
    """The metrics of a run of benchmarks/embedded_learning.py, a step each."""
    watched = {name: result["watched"][name] for name in result.get("watched", {})}
    watched |= {"reward/reward": result["reward"], "actor/pg_clipfrac": result["clipped"]}
    return [
        {name: values[step] for name, values in watched.items() if step in values}
        | {"training/rollout_probs_diff_mean": result["rollout_probs_diff_mean_max"]}
        for step in result["reward"]
    ]


@pytest.mark.parametrize("result", json.loads(SAVED.read_text()), ids=lambda result: f"seed {result['seed']}")
def test_a_run_that_learns_meets_nothing(result):
    steps = saved_run(result)
    assert len(steps) == 24
    assert met(WatchSettings(), steps) == [set()] * len(steps)


def healthy(steps: int) -> list[dict[str, float]]:
    return [HEALTHY | {"reward/reward": 0.5 + step / 100} for step in range(steps)]


def test_steady_metrics_meet_nothing():
    assert met(WatchSettings(), healthy(50)) == [set()] * 50


COLLAPSE = {
    "reward_drop": [0.1] * 5,
    "reward_stuck": [-1.0] * 5,
    "entropy_collapse": [0.001] * 5,
    "entropy_explosion": [4.0] * 5,
    "malformed": [0.9] * 5,
    "unserved": [0.6] * 5,
    "sample_size": [0.1] * 5,
    "gradient_norm": [50.0],
    "mismatch": [0.2] * 5,
    "clipped": [0.9] * 5,
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_run_that_goes_wrong_meets_its_condition_by_default(name):
    found = met(WatchSettings(), healthy(10) + [HEALTHY | step for step in series(name, COLLAPSE[name])])
    assert found[:10] == [set()] * 10
    assert name in found[-1]


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_limit_is_met_when_it_is_passed(name):
    settings = WatchSettings(**LIMITS)
    well, wrong = BOUNDS[name]
    before = series(name, [HEALTHY[CONDITIONS[name].metric]] * 6)
    assert name not in met(settings, [*before, *series(name, well)])[-1]
    assert name in met(settings, [*before, *series(name, wrong)])[-1]


@pytest.mark.parametrize("name", CONDITIONS)
def test_null_switches_a_condition_off(name):
    settings = WatchSettings(**LIMITS | {name: None})
    watch = Watch(settings)
    assert all(name not in watch.judge(step)[0] for step in series(name, [0.5] * 6 + BOUNDS[name][1]))


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_wrong_at_once_and_in_no_mean(name, value):
    steps = [HEALTHY, {CONDITIONS[name].metric: value}, HEALTHY]
    _, wrong, after = met(WatchSettings(), steps)
    assert name in wrong
    assert after == set()


def test_an_absent_metric_is_not_judged():
    watch = Watch(WatchSettings())
    assert watch.judge({}) == ({}, [])
    judged, _ = watch.judge({"workflow/malformed": 0.25})
    assert judged == {"malformed": None}


def test_a_sentence_says_what_is_wrong_in_numbers_and_where_to_read():
    judged, new = Watch(WatchSettings()).judge({"workflow/malformed": 0.75})
    assert new == ["malformed"]
    assert judged["malformed"] == (
        "many trajectories break the format: workflow/malformed is 0.75 over the last 1 step(s), above 0.5 "
        "(workflow_r1.watch.malformed; docs/turns.md#watch)."
    )


def test_a_condition_is_new_once_and_again_after_it_was_not_met():
    watch = Watch(WatchSettings())
    values = [0.75, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    new = [watch.judge({"workflow/malformed": value})[1] for value in values]
    assert [number for number, names in enumerate(new) if names] == [0, 9]


@pytest.mark.parametrize("cut", [1, 4, 9, 12])
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_resumed_run_is_judged_as_one_that_was_not_interrupted(name, cut):
    steps = healthy(8) + [HEALTHY | step for step in series(name, COLLAPSE[name] * 2)]
    whole, resumed = Watch(WatchSettings()), Watch(WatchSettings(), steps[:cut])
    for step in steps[:cut]:
        whole.judge(step)
    assert [whole.judge(step) for step in steps[cut:]] == [resumed.judge(step) for step in steps[cut:]]


METRICS = st.dictionaries(st.sampled_from([condition.metric for condition in CONDITIONS.values()]), st.floats())


@given(st.lists(METRICS, max_size=30), st.integers(0, 30))
def test_whatever_is_measured_a_resumed_run_is_judged_as_an_uninterrupted_one(steps, cut):
    whole, resumed = Watch(WatchSettings()), Watch(WatchSettings(), steps[:cut])
    judged = [whole.judge(step) for step in steps]
    assert [resumed.judge(step) for step in steps[cut:]] == judged[cut:]
    for step, (sentences, new) in zip(steps, judged, strict=True):
        assert sentences.keys() == {name for name, condition in CONDITIONS.items() if condition.metric in step}
        assert all(sentences[name] for name in new)


def test_the_gradient_is_compared_with_a_median_that_follows_it():
    norms = [100.0] * 20 + [1.0] * 20 + [20.0]
    assert met(WatchSettings(), series("gradient_norm", norms))[-1] == {"gradient_norm"}
    assert met(WatchSettings(), series("gradient_norm", [0.0] * 20 + [20.0]))[-1] == set()  # nothing to compare with


def test_a_reward_that_has_always_been_the_same_is_stuck():
    assert met(WatchSettings(), series("reward_stuck", [-1.0] * 6)) == [set()] * 4 + [{"reward_stuck"}] * 2
    assert met(WatchSettings(), series("reward_stuck", [0.0] + [1.0] * 9)) == [set()] * 10  # solved


@pytest.mark.parametrize(
    "wrong",
    [
        {"malformed": 1.0},
        {"reward_drop": -1},
        {"reward_stuck": 2.5},
        {"stop_on": ["rewards"]},
        {"stop_on": ["clipped"], "clipped": None},
        {"window": 3},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        WatchSettings(**wrong)
