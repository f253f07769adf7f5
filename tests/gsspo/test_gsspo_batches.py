"""The GSsPO loss on what training brings: masked garbage, empty responses, micro-batches, weights, half precision."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import close, masks, random_batch, value_and_gradient

from workflow_r1.gsspo import gsspo_loss

NAN, INF = float("nan"), float("inf")


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
    with pytest.raises(ValueError, match="one common shape"):
        gsspo_loss(x, x, x, x, clip_low=0.2, clip_high=0.2, rollout_is_weights=torch.ones(shape))
