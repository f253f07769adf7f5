"""Correction by turn: hand-computed values, verl's corrections as limits, and masks that never split a turn."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.correction import reject_turns, turn_weights
from workflow_r1.gsspo import find_subsequences

MASK = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 1]])
LOG_RATIO = torch.tensor([[0.2, 0.4, 9.0, -0.6, math.nan, 0.0], [math.inf, 0.1, 0.2, -0.6, 5.0, 1.0]]).double()
"""Turns: (.2, .4), (-.6) | (.1, .2, -.6), (1.)"""


def test_a_turns_weight_is_its_mean_or_whole_ratio_on_all_of_its_tokens():
    mean = turn_weights(LOG_RATIO, MASK, "mean", high=2.0)
    product = turn_weights(LOG_RATIO, MASK, "product", high=2.0)
    torch.testing.assert_close(mean.raw, torch.tensor([0.3, -0.6, -0.1, 1.0]).double().exp())
    torch.testing.assert_close(product.raw, torch.tensor([0.6, -0.6, -0.3, 1.0]).double().exp())
    a, b, c = math.exp(0.3), math.exp(-0.6), math.exp(-0.1)
    expected = torch.tensor([[a, a, 0, b, 0, 0], [0, c, c, c, 0, 2.0]]).double()
    torch.testing.assert_close(mean.weights, expected)


def test_with_a_lower_bound_a_weight_outside_is_zero():
    weights = turn_weights(LOG_RATIO, MASK, "mean", low=0.6, high=2.0)
    torch.testing.assert_close(weights.by_turn, torch.tensor([math.exp(0.3), 0, math.exp(-0.1), 0]).double())


def test_the_effective_sample_size_is_one_for_equal_weights_and_falls_with_their_spread():
    equal = turn_weights(torch.zeros_like(LOG_RATIO), MASK, "mean", high=2.0)
    assert equal.effective_sample_size == pytest.approx(1)
    weights = torch.tensor([0.3, -0.6, -0.1, math.log(2)]).exp()
    expected = float(weights.sum() ** 2 / (4 * weights.square().sum()))
    assert turn_weights(LOG_RATIO, MASK, "mean", high=2.0).effective_sample_size == pytest.approx(expected)


@pytest.mark.parametrize(
    ("estimator", "level", "divergence"),
    [
        ("k1", "mean", [-0.3, 0.6, 0.1, -1.0]),
        ("k1", "sum", [-0.6, 0.6, 0.3, -1.0]),
        ("k2", "mean", [(0.02 + 0.08) / 2, 0.18, (0.005 + 0.02 + 0.18) / 3, 0.5]),
        ("k2", "max", [0.08, 0.18, 0.18, 0.5]),
        ("k3", "max", [math.expm1(0.4) - 0.4, math.expm1(-0.6) + 0.6, math.expm1(-0.6) + 0.6, math.e - 2]),
    ],
)
def test_a_turns_divergence_is_the_mean_the_sum_or_the_largest_of_its_tokens(estimator, level, divergence):
    found = reject_turns(LOG_RATIO, MASK, estimator, level, high=10).divergence
    torch.testing.assert_close(found, torch.tensor(divergence).double())


def test_a_turn_outside_the_trust_region_is_left_out_whole_and_no_other_is():
    rejection = reject_turns(LOG_RATIO, MASK, "k2", "max", high=0.1)
    assert rejection.rejected.tolist() == [False, True, True, True]
    assert rejection.response_mask.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    assert rejection.response_mask.dtype == MASK.dtype


def test_k1_bounds_the_ratio_on_both_sides():
    assert reject_turns(LOG_RATIO, MASK, "k1", "mean", high=2.0).rejected.tolist() == [False, False, False, True]
    assert reject_turns(LOG_RATIO, MASK, "k1", "mean", low=0.2, high=1.5).rejected.tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_responses_with_a_turn_outside_can_be_left_out_whole():
    rejection = reject_turns(LOG_RATIO, MASK, "k2", "mean", high=0.3, whole_responses=True)
    assert rejection.rejected.tolist() == [False, False, True, True]
    assert rejection.response_mask[1].sum() == 0


masks = st.lists(st.lists(st.integers(0, 1), min_size=12, max_size=12), min_size=1, max_size=5).map(torch.tensor)


@given(masks, st.integers(0, 2**31), st.sampled_from(["k1", "k2", "k3"]), st.sampled_from(["mean", "sum", "max"]))
def test_a_mask_never_splits_a_turn(mask, seed, estimator, level):
    log_ratio = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed))
    rejection = reject_turns(log_ratio, mask, estimator, level, high=1.3)
    before, after = find_subsequences(mask), find_subsequences(rejection.response_mask)
    kept = ~rejection.rejected
    assert after.lengths.tolist() == before.lengths[kept].tolist()
    assert after.response.tolist() == before.response[kept].tolist()
    assert bool((rejection.response_mask <= mask).all())


def test_a_batch_without_a_turn_has_no_weights_and_nothing_to_reject():
    empty = torch.zeros(2, 3, dtype=torch.long)
    weights = turn_weights(torch.zeros(2, 3), empty, "mean", high=2.0)
    assert weights.weights.count_nonzero() == 0
    assert weights.effective_sample_size == 0
    assert reject_turns(torch.zeros(2, 3), empty, "k3", "max", high=1.0).response_mask.tolist() == empty.tolist()
