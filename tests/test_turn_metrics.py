"""Metrics by turn, by hand, and whatever parts a batch is seen in."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from workflow_r1.gsspo import find_subsequences
from workflow_r1.turn_metrics import COUNT, GROUPS, mismatch_metrics, turn_means, turn_sums

# Two turns of 2 and 1 tokens, one of 17, none.
MASK = torch.tensor([[1, 1, 0, 1] + [0] * 13, [1] * 17, [0] * 17])


def sums(mask: torch.Tensor, *values: float) -> dict[str, float]:
    return turn_sums(find_subsequences(mask), {"reward": torch.tensor(values)})


def test_by_hand():
    means = turn_means(sums(MASK, 1.0, 2.0, 4.0))
    assert means == {
        "turn_fraction/1": pytest.approx(2 / 3),
        "turn_fraction/2": pytest.approx(1 / 3),
        "turn_fraction/up_to_16_tokens": pytest.approx(2 / 3),
        "turn_fraction/up_to_64_tokens": pytest.approx(1 / 3),
        "turn_reward/1": 2.5,
        "turn_reward/2": 2.0,
        "turn_reward/up_to_16_tokens": 1.5,
        "turn_reward/up_to_64_tokens": 4.0,
    }


@pytest.mark.parametrize(
    ("turns", "group"), [(1, "1"), (4, "4"), (5, "5_to_8"), (8, "5_to_8"), (9, "from_9"), (40, "from_9")]
)
def test_the_last_of_so_many_turns_is_in_the_group(turns, group):
    values = torch.zeros(turns)
    values[-1] = 1.0
    by_group = turn_sums(find_subsequences(torch.tensor([[1, 0] * turns])), {"last": values})
    assert next(name for name, total in by_group.items() if name.startswith("last/") and total) == f"last/{group}"


@pytest.mark.parametrize(
    ("tokens", "group"), [(1, "up_to_16_tokens"), (16, "up_to_16_tokens"), (17, "up_to_64_tokens"), (1025, "longer")]
)
def test_bounds_of_lengths_are_inclusive(tokens, group):
    assert turn_sums(find_subsequences(torch.ones(1, tokens)), {})[f"{COUNT}/{group}"] == 1


def test_a_deviation_and_its_square_are_a_standard_deviation():
    deviation = torch.tensor([0.001, -0.003, 0.002])
    parts = turn_sums(find_subsequences(MASK), {"ratio_deviation": deviation, "ratio_deviation_square": deviation**2})
    means = turn_means(parts)
    assert means["turn_ratio_std/1"] == pytest.approx(0.0005, rel=1e-4)  # of 0.001 and 0.002
    assert means["turn_ratio_std/2"] == pytest.approx(0.0, abs=1e-6)
    assert not any("deviation" in name for name in means)


def test_what_no_turn_is_in_has_no_mean():
    assert turn_means(sums(torch.zeros(2, 3))) == {}


@given(st.lists(st.lists(st.booleans(), min_size=24, max_size=24), min_size=2, max_size=6), st.integers(1, 5))
def test_the_parts_of_a_batch_add_up_to_the_whole(rows, cut):
    mask = torch.tensor(rows)
    values = torch.arange(len(find_subsequences(mask).lengths), dtype=torch.float32)
    first = find_subsequences(mask[:cut])
    parts = [
        turn_sums(first, {"x": values[: len(first.lengths)]}),
        turn_sums(find_subsequences(mask[cut:]), {"x": values[len(first.lengths) :]}),
    ]
    averaged = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}  # as verl does, over ranks
    assert turn_means(averaged) == pytest.approx(turn_means(turn_sums(find_subsequences(mask), {"x": values})))
    assert len(parts[0]) == 2 * len(GROUPS)  # whatever turns there are


def test_the_mismatch_by_hand():
    log_prob = torch.full(MASK.shape, math.nan)
    log_prob[0, [0, 1, 3]] = torch.tensor([-1.0, -1.2, -0.5])
    log_prob[1] = -0.7
    rollout = log_prob.clone()
    rollout[0, [0, 1, 3]] -= torch.tensor([0.1, 0.3, -0.2])  # log-ratios of 0.1, 0.3 and -0.2; 0 in the other response
    found = mismatch_metrics(log_prob, rollout, torch.arange(17.0).repeat(3, 1), MASK)
    assert found["mismatch/k1"] == pytest.approx(-(0.2 - 0.2 + 0.0) / 3, abs=1e-6)
    k3 = [(math.exp(0.1) - 1.1 + math.exp(0.3) - 1.3) / 2, math.exp(-0.2) - 1 + 0.2, 0.0]
    assert found["mismatch/k3"] == pytest.approx(sum(k3) / 3, rel=1e-5)
    assert found["mismatch/k3_max"] == pytest.approx(max(k3), rel=1e-5)
    weights = [math.exp(0.2), math.exp(-0.2), 1.0]
    assert found["mismatch/eff_sample_size"] == pytest.approx(sum(weights) ** 2 / 3 / sum(w * w for w in weights))
    assert found["turn_mismatch/2"] == pytest.approx(k3[1], rel=1e-5)
    assert (found["turn_entropy/1"], found["turn_entropy/2"]) == (pytest.approx((0.5 + 8.0) / 2), 3.0)


def test_equal_policies_have_no_mismatch_and_nothing_was_measured_on_an_empty_mask():
    log_prob = torch.randn(3, 17)
    found = mismatch_metrics(log_prob, log_prob, log_prob, MASK)
    assert (found["mismatch/k3_max"], found["mismatch/eff_sample_size"]) == (0.0, 1.0)
    assert mismatch_metrics(log_prob, log_prob, log_prob, torch.zeros(3, 17)) == {}
