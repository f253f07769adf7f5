"""GSsPO in pure torch: against numbers worked out by hand, against a loop-written reference, and at its limits."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_r1.gsspo import find_subsequences, group_relative_advantages, gsspo_loss

NAN, INF = float("nan"), float("inf")


def runs_of_ones(row):
    """[0, 1, 1, 0, 1] -> [[1, 2], [4]]."""
    runs, previous = [], False
    for t, one in enumerate(row):
        if one and previous:
            runs[-1].append(t)
        elif one:
            runs.append([t])
        previous = one
    return runs


def naive_loss(log_prob, old_log_prob, advantages, mask, low, high, weighting="uniform", num_responses=None):
    """The formula with plain loops: the ratio of a sub-sequence is a function of all its tokens, no stop-gradient."""
    responses = []
    for i, row in enumerate(mask.tolist()):
        objective, runs = 0.0, runs_of_ones(row)
        for run in runs:
            s = torch.stack([log_prob[i, t] - old_log_prob[i, t] for t in run]).mean().exp()
            advantage = advantages[i, run[0]]
            weight = 1 / len(runs) if weighting == "uniform" else len(run) / sum(row)
            objective = objective + weight * torch.minimum(s * advantage, s.clamp(1 - low, 1 + high) * advantage)
        responses += [objective] if runs else []
    return -sum(responses, start=log_prob.new_zeros(())) / (num_responses or max(len(responses), 1))


def random_batch(mask, seed, spread=0.3, dtype=torch.float64):
    """Log-probs around -2 and one advantage for each sub-sequence."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.as_tensor(mask, dtype=torch.bool)
    old = torch.randn(mask.shape, generator=generator, dtype=dtype) - 2
    log_prob = old + spread * torch.randn(mask.shape, generator=generator, dtype=dtype)
    turn = mask.clone()
    turn[:, 1:] &= ~mask[:, :-1]
    advantages = torch.randn(mask.shape, generator=generator, dtype=dtype).gather(1, turn.cumsum(1).clamp(min=1) - 1)
    return log_prob.requires_grad_(), old, advantages, mask


def value_and_gradient(function, log_prob, *args, **kwargs):
    log_prob = log_prob.detach().clone().requires_grad_()
    output = function(log_prob, *args, **kwargs)
    loss = output if isinstance(output, torch.Tensor) else output.loss
    loss.backward()
    return loss.detach(), log_prob.grad


@st.composite
def masks(draw, max_responses=5, max_tokens=12):
    num_tokens = draw(st.integers(1, max_tokens))
    row = st.lists(st.booleans(), min_size=num_tokens, max_size=num_tokens)
    return draw(st.lists(row, min_size=1, max_size=max_responses))


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


def close(actual, expected, **tolerance):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-9, "atol": 1e-9} | tolerance))


def test_loss_and_gradient_match_the_numbers_worked_out_by_hand():
    output, gradient = hand_computed("uniform")
    # -( (1.2 + 0.6065306597) / 2  -  1.8  -  (1.4918246976 + 1) / 2 ) / 3
    close(output.loss.detach(), 0.7142156730)
    # Clipped sub-sequences have no gradient; the others -s·Â / (3 responses · K_i · |τ|).
    close(
        gradient,
        [
            [0.0, 0.0, 0.0, -0.1010884433],  # -0.6065306597 / 6
            [0.0, 0.0, 0.0, 0.0],
            [0.2486374496, 0.0, 0.0833333333, 0.0833333333],  # 1.4918246976 / 6, 1 / 12
        ],
    )


def test_token_weighting_matches_the_numbers_worked_out_by_hand():
    output, gradient = hand_computed("token")
    # -( (2·1.2 + 0.6065306597) / 3  -  1.8  -  (1.4918246976 + 2·1) / 3 ) / 3
    close(output.loss.detach(), 0.6539215598)
    close(
        gradient,
        [
            [0.0, 0.0, 0.0, -0.0673922955],  # -0.6065306597 / 9
            [0.0, 0.0, 0.0, 0.0],
            [0.1657582997, 0.0, 0.1111111111, 0.1111111111],  # 1.4918246976 / 9, 1 / 9
        ],
    )


def test_the_reported_statistics_match_the_numbers_worked_out_by_hand():
    output, _ = hand_computed("uniform")
    close(output.ratio, [1.2214027582, 0.6065306597, 0.8187307531, 1.4918246976, 1.0])
    assert output.clipped_high.tolist() == [True, False, False, False, False]
    assert output.clipped_low.tolist() == [False, False, True, False, False]
    close(output.approx_kl, 0.3 / 9)
    assert output.subsequences.lengths.tolist() == [2, 1, 3, 1, 2]
    assert output.subsequences.response.tolist() == [0, 0, 1, 2, 2]
    assert output.subsequences.num_responses == 3


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_subsequences_are_the_maximal_runs_of_ones_within_a_response(dtype):
    # A run at a row's end and one at the next row's start are two.
    runs = find_subsequences(torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=dtype))
    assert runs.of_token.tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert runs.response.tolist() == [0, 1, 1, 3]
    assert runs.lengths.tolist() == [2, 1, 1, 3]
    assert runs.num_responses == 3


@settings(max_examples=150, deadline=None)
@given(masks(), st.integers(0, 2**16), st.sampled_from(["uniform", "token"]), st.floats(0.0, 1.5))
def test_value_and_gradient_equal_autograd_of_the_plain_formula(mask, seed, weighting, spread):
    batch = random_batch(mask, seed, spread)
    loss, gradient = value_and_gradient(gsspo_loss, *batch, clip_low=0.1, clip_high=0.2, weighting=weighting)
    expected_loss, expected_gradient = (
        value_and_gradient(naive_loss, *batch, 0.1, 0.2, weighting)
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


def test_rollout_weights_scale_the_loss_of_each_token():
    log_prob, old, advantages, mask = random_batch([[1, 1, 0, 1], [0, 1, 1, 1]], seed=1)
    weights = torch.tensor([[0.5, 2.0, NAN, 1.0], [NAN, 1.0, 0.0, 3.0]], dtype=torch.float64)
    clip = {"clip_low": 10.0, "clip_high": 10.0}
    plain = value_and_gradient(gsspo_loss, log_prob, old, advantages, mask, **clip)
    weighted = value_and_gradient(gsspo_loss, log_prob, old, advantages, mask, **clip, rollout_is_weights=weights)
    close(weighted[1], plain[1] * weights.nan_to_num())
    # Without a clip the loss is -s_k·Â averaged, which is also what the gradients of its tokens sum to.
    close(weighted[0], weighted[1].sum())


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 2**16), st.sampled_from([NAN, INF, -INF]))
def test_what_stands_at_masked_positions_changes_nothing(mask, seed, garbage):
    log_prob, old, advantages, mask = random_batch(mask, seed)
    weights = torch.full_like(old, 0.5)
    clip = {"clip_low": 0.1, "clip_high": 0.1}

    def run(fill):
        inputs = [x.detach().where(mask, fill) for x in (log_prob, old, advantages)]
        return value_and_gradient(gsspo_loss, *inputs, mask, **clip, rollout_is_weights=weights.where(mask, fill))

    (loss, gradient), (expected_loss, expected_gradient) = run(garbage), run(0.0)
    assert torch.equal(loss, expected_loss)
    assert torch.equal(gradient, expected_gradient)
    assert not gradient[~mask].any()


def test_empty_responses_count_for_nothing():
    log_prob, old, advantages, mask = random_batch([[1, 0, 1], [0, 0, 0], [1, 1, 1]], seed=2)
    loss, gradient = value_and_gradient(gsspo_loss, log_prob, old, advantages, mask, clip_low=0.2, clip_high=0.2)
    kept = [x[[0, 2]] for x in (log_prob, old, advantages, mask)]
    expected_loss, expected_gradient = value_and_gradient(gsspo_loss, *kept, clip_low=0.2, clip_high=0.2)
    close(loss, expected_loss)
    close(gradient[[0, 2]], expected_gradient)
    assert not gradient[1].any()


@pytest.mark.parametrize("num_responses", [None, 8])
def test_a_batch_without_a_valid_token_has_loss_zero_and_a_zero_gradient(num_responses):
    log_prob, old, advantages, mask = random_batch([[0, 0], [0, 0]], seed=0)
    output = gsspo_loss(log_prob, old, advantages, mask, clip_low=0.2, clip_high=0.2, num_responses=num_responses)
    output.loss.backward()
    assert output.loss.item() == 0.0
    assert torch.equal(log_prob.grad, torch.zeros_like(log_prob))
    assert output.approx_kl.item() == 0.0


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 2**16), st.sampled_from(["uniform", "token"]), st.data())
def test_loss_and_gradient_do_not_depend_on_how_the_batch_is_cut(mask, seed, weighting, data):
    batch = random_batch(mask, seed)
    options = {"clip_low": 0.1, "clip_high": 0.2, "weighting": weighting, "num_responses": 7}
    whole_loss, whole_gradient = value_and_gradient(gsspo_loss, *batch, **options)

    cuts = sorted(data.draw(st.sets(st.integers(1, len(mask)), max_size=3)) | {0, len(mask)})
    parts = [value_and_gradient(gsspo_loss, *(x[i:j] for x in batch), **options) for i, j in pairwise(cuts)]
    close(sum(loss for loss, _ in parts), whole_loss)
    close(torch.cat([gradient for _, gradient in parts]), whole_gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_log_probs_are_compared_in_float32(dtype):
    log_prob, old, advantages, mask = random_batch([[1, 1, 0, 1], [1, 0, 1, 1]], seed=4, dtype=torch.float32)
    half = [x.detach().to(dtype) for x in (log_prob, old)]
    loss, gradient = value_and_gradient(gsspo_loss, *half, advantages, mask, clip_low=0.2, clip_high=0.2)
    raised = [x.float() for x in half]
    expected_loss, expected_gradient = value_and_gradient(
        gsspo_loss, *raised, advantages, mask, clip_low=0.2, clip_high=0.2
    )
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected_loss)
    assert torch.equal(gradient, expected_gradient.to(dtype))


def test_a_ratio_beyond_any_bound_stays_finite():
    old = torch.full((1, 3), -2000.0)
    for sign in (1.0, -1.0):
        log_prob = torch.zeros(1, 3, requires_grad=True)
        advantages = torch.full((1, 3), sign)
        output = gsspo_loss(log_prob, old, advantages, torch.ones(1, 3), clip_low=0.2, clip_high=0.2)
        output.loss.backward()
        assert output.loss.isfinite()
        assert output.ratio.isfinite().all()
        assert log_prob.grad.isfinite().all()


def test_an_unknown_weighting_is_refused():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="uniform, token, not by 'length'"):
        gsspo_loss(x, x, x, x, clip_low=0.2, clip_high=0.2, weighting="length")


@pytest.mark.parametrize("shape", [(2, 3), (2, 1), (4,)])
def test_shapes_that_do_not_fit_are_refused(shape):
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="one common shape"):
        gsspo_loss(x, x, torch.zeros(shape), x, clip_low=0.2, clip_high=0.2)


# --- advantages ---


def outcome_rewards(scores, num_tokens=4):
    rewards = torch.zeros(len(scores), num_tokens, dtype=torch.float64)
    rewards[:, -1] = torch.tensor(scores, dtype=torch.float64)
    return rewards


def test_advantages_are_the_outcomes_normalised_in_the_group():
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]])
    groups = ["q1", "q2", "q1", "q2"]
    rewards = outcome_rewards([1.0, -1.0, 0.0, 3.0])
    # q1: 1 and 0, mean 0.5, std 0.7071067812; q2: -1 and 3, mean 1, std 2.8284271247
    scaled = [0.7071057812, -0.7071065312, -0.7071057812, 0.7071065312]
    for by_std, expected in ((True, scaled), (False, [0.5, -2.0, -0.5, 2.0])):
        advantages = group_relative_advantages(rewards, mask, groups, normalise_by_std=by_std)
        close(advantages, torch.tensor(expected, dtype=torch.float64)[:, None] * mask)


def test_a_response_left_out_of_training_does_not_touch_its_group():
    mask = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]])
    rewards = torch.tensor([[0.0, 1.0], [0.0, -100.0], [0.0, 0.0], [0.0, NAN]])
    advantages = group_relative_advantages(rewards, mask, [7, 7, 7, 7], normalise_by_std=False)
    assert advantages.tolist() == [[0.5, 0.5], [0.0, 0.0], [-0.5, 0.0], [0.0, 0.0]]


def test_the_only_response_of_a_group_that_is_trained_on_has_nothing_to_be_compared_with():
    mask = torch.tensor([[1, 1], [0, 0], [1, 1]])
    advantages = group_relative_advantages(torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 3.0]]), mask, ["a", "a", "b"])
    assert advantages[0].tolist() == [0.0, 0.0]
    assert advantages[2].tolist() == pytest.approx([3.0, 3.0])


def test_a_group_of_one_keeps_its_reward_and_an_empty_batch_is_all_zero():
    rewards, mask = outcome_rewards([2.0]), torch.tensor([[1, 0, 0, 1]])
    close(group_relative_advantages(rewards, mask, ["a"]), [[2 / (1 + 1e-6), 0, 0, 2 / (1 + 1e-6)]])
    assert not group_relative_advantages(rewards, torch.zeros(1, 4), ["a"], turn_rewards=True).any()


def test_turn_rewards_fall_on_their_own_turn():
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]])
    rewards = torch.tensor(
        [
            [0.0, 3.0, 0.0, 0.0, 1.0, 4.0],  # turns 3 and 1 (on the observation after it), outcome 4
            [2.0, 0.0, 0.0, 0.0, 0.0, 1.0],  # turn 2, outcome 1, paid after the last token
            [0.5, 0.0, 0.0, 0.5, 0.0, 0.0],  # outcome 1, the part before the first turn included
        ]
    )
    # Outcomes 4, 1, 1: mean 2. Turn rewards 3, 1, 2: mean 2, std 1. Without the std:
    advantages = group_relative_advantages(rewards, mask, "aaa", normalise_by_std=False, turn_rewards=True)
    close(
        advantages,
        [
            [2.0 + 1.0, 2.0 + 1.0, 0.0, 2.0 - 1.0, 0.0, 2.0],
            [-1.0 + 0.0, 0.0, -1.0, -1.0, 0.0, 0.0],
            [0.0, 0.0, -1.0, -1.0, 0.0, 0.0],
        ],
    )
    # With it, the outcomes are also divided by sqrt(3).
    scaled = group_relative_advantages(rewards, mask, "aaa", turn_rewards=True)
    close(scaled[0, [0, 3, 5]], [1.1547005 + 1, 1.1547005 - 1, 1.1547005], atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 2**16), st.booleans())
def test_without_turn_rewards_to_give_the_option_changes_nothing(mask, seed, by_std):
    mask = torch.tensor(mask)
    rewards = torch.zeros(mask.shape, dtype=torch.float64)
    rewards[:, -1] = torch.randn(len(mask), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    groups = [i % 2 for i in range(len(mask))]
    on, off = (
        group_relative_advantages(rewards, mask, groups, normalise_by_std=by_std, turn_rewards=turn_rewards)
        for turn_rewards in (True, False)
    )
    assert torch.equal(on, off)


def test_inputs_are_left_as_they_were():
    rewards, mask = outcome_rewards([1.0, 0.0]), torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]])
    before = rewards.clone(), mask.clone()
    group_relative_advantages(rewards, mask, "aa", turn_rewards=True)
    assert torch.equal(rewards, before[0])
    assert torch.equal(mask, before[1])
