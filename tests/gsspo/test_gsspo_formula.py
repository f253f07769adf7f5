"""The GSsPO loss: against numbers worked out by hand, autograd of the plain formula, and its limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import close, masks, random_batch, runs_of_ones, value_and_gradient

from workflow_r1.gsspo import find_subsequences, gsspo_loss


def naive_loss(log_prob, old_log_prob, advantages, mask, low, high, dual, weighting="uniform"):
    """The formula with plain loops: the ratio of a sub-sequence is a function of all its tokens, no stop-gradient."""
    responses = []
    for i, row in enumerate(mask.tolist()):
        objective, runs = 0.0, runs_of_ones(row)
        for run in runs:
            s = torch.stack([log_prob[i, t] - old_log_prob[i, t] for t in run]).mean().exp()
            advantage = advantages[i, run[0]]
            weight = 1 / len(runs) if weighting == "uniform" else len(run) / sum(row)
            clipped = torch.minimum(s * advantage, s.clamp(1 - low, 1 + high) * advantage)
            if advantage < 0:
                clipped = torch.maximum(clipped, dual * advantage)
            objective = objective + weight * clipped
        responses += [objective] if runs else []
    return -sum(responses, start=log_prob.new_zeros(())) / max(len(responses), 1)


# Worked out by hand with ε_low = 0.1 and ε_high = 0.2:
#   response  sub-sequence  log-ratios        s             Â    min(s·Â, clip(s)·Â)
#   0         tokens 0-1    0.1  0.3          1.2214027582  +1    1.2            clipped high
#   0         token  3      -0.5              0.6065306597  +1    0.6065306597
#   1         tokens 1-3    -0.2 -0.2 -0.2    0.8187307531  -2   -1.8            clipped low
#   2         token  0      0.4               1.4918246976  -1   -1.4918246976
#   2         tokens 2-3    0.05 -0.05        1             -1   -1
HAND_MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1]])
HAND_LOG_RATIO = torch.tensor(
    [[0.1, 0.3, 9.0, -0.5], [9.0, -0.2, -0.2, -0.2], [0.4, 9.0, 0.05, -0.05]], dtype=torch.float64
)
HAND_OLD = torch.tensor([[-1.0, -2.0, -3.0, -4.0]] * 3, dtype=torch.float64)
HAND_ADVANTAGES = torch.tensor([[1.0], [-2.0], [-1.0]], dtype=torch.float64).expand(3, 4)


def hand_computed(weighting):
    log_prob = (HAND_OLD + HAND_LOG_RATIO).requires_grad_()
    output = gsspo_loss(
        log_prob, HAND_OLD, HAND_ADVANTAGES, HAND_MASK, clip_low=0.1, clip_high=0.2, weighting=weighting
    )
    output.loss.backward()
    return output, log_prob.grad


# Clipped sub-sequences have no gradient; of the others each token has -s·Â·weight / (3 responses · |τ|).
@pytest.mark.parametrize(
    ("weighting", "loss", "gradient"),
    [
        (
            "uniform",  # -( (1.2 + 0.6065306597) / 2  -  1.8  -  (1.4918246976 + 1) / 2 ) / 3
            0.7142156730,
            [
                [0.0, 0.0, 0.0, -0.1010884433],  # -0.6065306597 / 6
                [0.0, 0.0, 0.0, 0.0],
                [0.2486374496, 0.0, 0.0833333333, 0.0833333333],  # 1.4918246976 / 6, 1 / 12
            ],
        ),
        (
            "token",  # -( (2·1.2 + 0.6065306597) / 3  -  1.8  -  (1.4918246976 + 2·1) / 3 ) / 3
            0.6539215598,
            [
                [0.0, 0.0, 0.0, -0.0673922955],  # -0.6065306597 / 9
                [0.0, 0.0, 0.0, 0.0],
                [0.1657582997, 0.0, 0.1111111111, 0.1111111111],  # 1.4918246976 / 9, 1 / 9
            ],
        ),
    ],
)
def test_loss_and_gradient_match_the_numbers_worked_out_by_hand(weighting, loss, gradient):
    output, computed = hand_computed(weighting)
    close(output.loss.detach(), loss)
    close(computed, gradient)


def test_the_reported_statistics_match_the_numbers_worked_out_by_hand():
    output, _ = hand_computed("uniform")
    close(output.ratio, [1.2214027582, 0.6065306597, 0.8187307531, 1.4918246976, 1.0])
    assert output.clipped_high.tolist() == [True, False, False, False, False]
    assert output.clipped_low.tolist() == [False, False, True, False, False]
    close(output.approx_kl, 0.3 / 9)
    assert output.subsequences.lengths.tolist() == [2, 1, 3, 1, 2]
    assert output.subsequences.response.tolist() == [0, 0, 1, 2, 2]
    assert output.subsequences.num_responses == 3


def test_the_dual_clip_bounds_the_loss_of_a_turn_with_a_negative_advantage_and_no_other():
    log_ratio = torch.tensor([[2.0, 0.0, 1.0, 1.4], [2.0, 2.0, 0.0, 0.5]], dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 1]])
    old = torch.full((2, 4), -3.0, dtype=torch.float64)
    advantages = torch.tensor([[-2.0], [1.0]], dtype=torch.float64).expand(2, 4)
    log_prob = (old + log_ratio).requires_grad_()
    output = gsspo_loss(log_prob, old, advantages, mask, clip_low=0.1, clip_high=0.2, clip_dual=3.0)
    output.loss.backward()
    # Ratios exp(2) = 7.389 and exp(1.2) = 3.320 are cut to 3 where the advantage is -2, and to 1.2 where it is +1.
    close(output.loss.detach(), ((6.0 + 6.0) / 2 - (1.2 + 1.2) / 2) / 2)
    assert output.clipped_dual.tolist() == [True, True, False, False]
    assert output.clipped_high.tolist() == [False, False, True, True]
    assert not log_prob.grad.any()
    unbounded = gsspo_loss(log_prob, old, advantages, mask, clip_low=0.1, clip_high=0.2)
    close(unbounded.loss.detach(), ((2 * 7.38905609893 + 2 * 3.32011692274) / 2 - 1.2) / 2)
    assert not unbounded.clipped_dual.any()


@pytest.mark.parametrize("clip_dual", [1.0, 0.5, -3.0, math.nan])
def test_a_dual_clip_that_would_cut_ratios_of_one_is_refused(clip_dual):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="needs to be more than 1"):
        gsspo_loss(x, x, x, x, clip_low=0.2, clip_high=0.2, clip_dual=clip_dual)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_subsequences_are_the_maximal_runs_of_ones_within_a_response(dtype):
    # A run at a row's end and one at the next row's start are two.
    runs = find_subsequences(torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=dtype))
    assert runs.of_token.tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert runs.response.tolist() == [0, 1, 1, 3]
    assert runs.lengths.tolist() == [2, 1, 1, 3]
    assert runs.num_responses == 3


@settings(max_examples=150, deadline=None)
@given(
    masks(),
    st.integers(0, 2**16),
    st.sampled_from(["uniform", "token"]),
    st.floats(0.0, 1.5),
    st.sampled_from([1.3, 3.0, math.inf]),
)
def test_value_and_gradient_equal_autograd_of_the_plain_formula(mask, seed, weighting, spread, dual):
    batch = random_batch(mask, seed, spread)
    clips = {"clip_low": 0.1, "clip_high": 0.2, "clip_dual": dual}
    loss, gradient = value_and_gradient(gsspo_loss, *batch, **clips, weighting=weighting)
    expected_loss, expected_gradient = (
        value_and_gradient(naive_loss, *batch, 0.1, 0.2, dual, weighting)
        if batch[-1].any()
        else (torch.zeros((), dtype=torch.float64), torch.zeros_like(batch[0]))
    )
    close(loss, expected_loss)
    close(gradient, expected_gradient)


@pytest.mark.parametrize("weighting", ["uniform", "token"])
def test_gradient_equals_finite_differences_of_the_value(weighting):
    mask = [[1, 1, 0, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0, 0], [0] * 8]
    log_prob, old, advantages, mask = random_batch(mask, seed=5)
    assert torch.autograd.gradcheck(
        lambda x: gsspo_loss(x, old, advantages, mask, clip_low=0.2, clip_high=0.2, weighting=weighting).loss, log_prob
    )


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 2**16))
def test_on_the_old_policy_it_is_the_policy_gradient_weighted_by_turn(mask, seed):
    log_prob, _, advantages, mask = random_batch(mask, seed)
    output = gsspo_loss(log_prob, log_prob.detach(), advantages, mask, clip_low=0.2, clip_high=0.2)
    output.loss.backward()
    assert torch.equal(output.ratio, torch.ones_like(output.ratio))

    expected = torch.zeros_like(log_prob)
    for i, row in enumerate(mask.tolist()):
        for run in (runs := runs_of_ones(row)):
            expected[i, run] = -advantages[i, run].detach() / (len(runs) * len(run)) / mask.any(1).sum()
    close(log_prob.grad, expected)


def test_one_token_a_subsequence_is_the_ratio_and_clip_of_ppo():
    mask = torch.tensor([[1, 0, 1, 0, 1, 0, 1]] * 4)
    log_prob, old, advantages, _ = random_batch(mask, seed=3, spread=0.4)
    loss, gradient = value_and_gradient(gsspo_loss, log_prob, old, advantages, mask, clip_low=0.1, clip_high=0.3)

    def ppo(x):
        ratio = (x - old).exp()
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.9, 1.3) * advantages)
        return -(surrogate * mask).sum() / mask.sum()

    expected_loss, expected_gradient = value_and_gradient(ppo, log_prob)
    close(loss, expected_loss)
    close(gradient, expected_gradient)


def test_advantages_may_differ_from_token_to_token():
    log_prob = torch.tensor([[-1.0, -1.0, -1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    old = log_prob.detach() - torch.tensor([[0.3, 0.1, 0.0, 0.0]], dtype=torch.float64)
    advantages = torch.tensor([[1.0, -3.0, 5.0, 2.0]], dtype=torch.float64)
    output = gsspo_loss(log_prob, old, advantages, torch.tensor([[1, 1, 0, 1]]), clip_low=0.1, clip_high=0.1)
    output.loss.backward()
    # s = exp(0.2) = 1.2214027582 is clipped to 1.1 for the first token only; second sub-sequence: s = 1.
    close(output.loss.detach(), -((1.1 - 3 * 1.2214027582) / 2 + 2) / 2)
    close(log_prob.grad, [[0.0, 3 * 1.2214027582 / 4, 0.0, -1.0]])
    assert output.clipped_high.tolist() == [True, False]
