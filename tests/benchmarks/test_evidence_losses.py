"""The cells of the factorial are verl's own losses and GSsPO's, where those are cells of it."""

import sys
from pathlib import Path

import pytest
import torch
from support.batches import random_batch
from support.verl_losses import actor_config, run_loss
from verl.trainer.ppo.core_algos import get_policy_loss_fn

from workflow_r1.verl_plugin.gsspo_loss import GSsPOLossConfig

FILE = Path(__file__).parents[2] / "benchmarks" / "evidence_losses.py"
MASK = torch.tensor([[1, 1, 0, 1, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0], [0] * 8, [1, 1, 1, 1, 1, 1, 1, 1]])
BATCH = {"dp_size": 2, "global_batch_size": 6, "batch_num_tokens": 40}


def cell(name: str) -> str:
    """The loss, registered as a run registers it."""
    loss = f"{FILE}:{name}"
    GSsPOLossConfig(loss_mode=loss)
    assert callable(get_policy_loss_fn(loss))
    return loss


@pytest.mark.parametrize("batch_info", [{}, BATCH])
@pytest.mark.parametrize(
    ("name", "known", "aggregation", "weighting"),
    [
        ("token_ratio_token_weight", "vanilla", "token-mean", "uniform"),
        ("token_ratio_response_weight", "vanilla", "seq-mean-token-mean", "uniform"),
        ("response_ratio_response_weight", "gspo", "seq-mean-token-mean", "uniform"),
        ("turn_ratio_turn_weight", "gsspo", "token-mean", "uniform"),
        ("turn_ratio_response_weight", "gsspo", "token-mean", "token"),
    ],
)
def test_a_cell_equals_the_loss_that_it_is(name, known, aggregation, weighting, batch_info):
    policy_loss = GSsPOLossConfig(subsequence_weighting=weighting)
    dual = 1e6 if known == "gspo" else 3.0  # gspo has no dual clip
    config = actor_config(
        batch_info, clip_ratio_low=0.1, clip_ratio_high=0.2, clip_ratio_c=dual, policy_loss=policy_loss
    )
    batch = random_batch(MASK, seed=3, dtype=torch.float32)
    ours, theirs = run_loss(cell(name), batch, config, aggregation), run_loss(known, batch, config, aggregation)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-6)


def test_there_are_nine_and_an_empty_micro_batch_is_taken_by_each():
    sys.path.insert(0, str(FILE.parent))
    try:
        from evidence_losses import LOSSES
    finally:
        sys.path.remove(str(FILE.parent))
    assert len(LOSSES) == 9
    empty = random_batch(torch.zeros(2, 5), seed=0, dtype=torch.float32)
    for name in LOSSES:
        loss, gradient, _ = run_loss(cell(name), empty, actor_config(BATCH))
        assert (float(loss), bool(gradient.any())) == (0.0, False)
