"""The soft gate: by hand, against autograd of the plain formula, and in its limits."""

import math

import pytest
import torch
from hypothesis import given
from support.batches import close, masks, random_batch, runs_of_ones, value_and_gradient

from workflow_r1.gsspo import gsspo_loss, soft_gsspo_loss


def naive_loss(log_prob, old_log_prob, advantages, mask, tau_positive, tau_negative):
    """The formula with plain loops: the ratio of a turn is a function of all its tokens, no stop-gradient."""
    responses = []
    for i, row in enumerate(mask.tolist()):
        turns = []
        for run in runs_of_ones(row):
            s = torch.stack([log_prob[i, t] - old_log_prob[i, t] for t in run]).mean().exp()
            advantage = advantages[i, run[0]]
            tau = tau_positive if advantage > 0 else tau_negative
            turns.append(4 / tau * torch.sigmoid(tau * (s - 1)) * advantage)
        responses += [sum(turns) / len(turns)] if turns else []
    return -sum(responses, start=0 * log_prob.sum()) / max(len(responses), 1)


def test_a_turn_by_hand():
    # One turn of two tokens, s = e^0.2, Â = 2, τ = 1: -2 · 4 / (1 + e^-(e^0.2 - 1))
    old = torch.tensor([[-1.0, -2.0]]).double()
    log_prob = old + torch.tensor([[0.1, 0.3]])
    output = soft_gsspo_loss(
        log_prob, old, torch.full((1, 2), 2.0).double(), torch.ones(1, 2), tau_positive=1.0, tau_negative=9.0
    )
    assert float(output.loss) == pytest.approx(-8 / (1 + math.exp(-(math.exp(0.2) - 1))))
    assert not output.clipped_low.any() | output.clipped_high.any() | output.clipped_dual.any()


@given(masks())
def test_value_and_gradient_are_those_of_the_formula(mask):
    batch = random_batch(mask, seed=0, spread=0.5)
    soft = value_and_gradient(soft_gsspo_loss, *batch, tau_positive=1.0, tau_negative=1.3)
    naive = value_and_gradient(naive_loss, *batch, tau_positive=1.0, tau_negative=1.3)
    close(soft[0], naive[0])
    close(soft[1], naive[1])


def test_as_the_temperature_goes_to_zero_the_gradient_is_that_of_the_unclipped_objective():
    batch = random_batch([[1, 1, 0, 1], [1, 0, 1, 1]], seed=1, spread=0.5)
    soft = value_and_gradient(soft_gsspo_loss, *batch, tau_positive=1e-5, tau_negative=1e-5)
    plain = value_and_gradient(gsspo_loss, *batch, clip_low=1 - 1e-9, clip_high=1e9)
    torch.testing.assert_close(soft[1], plain[1], rtol=1e-4, atol=1e-8)


def test_temperatures_of_zero_are_refused():
    batch = random_batch([[1, 1]], seed=0)
    with pytest.raises(ValueError, match="needs temperatures above 0; got 0 and 1"):
        soft_gsspo_loss(*batch, tau_positive=0.0, tau_negative=1.0)
