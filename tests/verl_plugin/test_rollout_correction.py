"""Corrections by turn in verl's own correction: its limits, its thresholds, and options side by side."""

import pytest
import torch
from verl import DataProto
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.trainer.ppo import rollout_corr_helper as verls

import workflow_r1.verl_plugin.rollout_correction  # noqa: F401  (registers when verl's module is imported)

LONE_TOKENS = torch.tensor([[1, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0, 1]])
ONE_TURN = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]])
TURNS = torch.tensor([[1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 1, 1]])


def correct(mask: torch.Tensor, spread: float = 0.5, **settings: object) -> tuple[DataProto, dict]:
    generator = torch.Generator().manual_seed(1)
    old, rollout = (-1 + spread * torch.randn(mask.shape, generator=generator) for _ in range(2))
    batch = {"old_log_probs": old, "rollout_log_probs": rollout, "response_mask": mask}
    config = RolloutCorrectionConfig(**settings)  # type: ignore[arg-type]
    return verls.compute_rollout_correction_and_add_to_batch(DataProto.from_dict(tensors=batch), config)


@pytest.mark.parametrize("threshold", [1.2, "0.7_1.5"])
@pytest.mark.parametrize(
    ("mask", "turn", "verl"),
    [
        (LONE_TOKENS, "turn", "token"),
        (LONE_TOKENS, "turn_product", "token"),
        (ONE_TURN, "turn_product", "sequence"),
    ],
)
def test_the_weights_are_verls_where_a_turn_is_a_token_or_a_response(mask, turn, verl, threshold):
    ours, theirs = (
        correct(mask, 0.2, rollout_is=level, rollout_is_threshold=threshold)[0].batch["rollout_is_weights"]
        for level in (turn, verl)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("normalise", [False, True])
def test_one_weight_a_turn_reaches_the_batch_without_a_gradient(normalise):
    batch, metrics = correct(TURNS, rollout_is="turn", rollout_is_threshold=1.1, rollout_is_batch_normalize=normalise)
    weights = batch.batch["rollout_is_weights"]
    assert not weights.requires_grad
    assert weights[0, 0] == weights[0, 1] != weights[0, 3] == weights[0, 4]
    assert weights[TURNS == 0].count_nonzero() == 0
    if normalise:
        by_turn = torch.stack([weights[0, 0], weights[0, 3], weights[1, 1], weights[1, 5]])
        assert by_turn.mean() == pytest.approx(1)
    assert 0 < metrics["rollout_corr/rollout_is_eff_sample_size"] <= 1
    assert metrics["rollout_corr/rollout_is_mean"] <= 1.1


@pytest.mark.parametrize(
    ("turn", "verl", "threshold"),
    [
        ("turn_mean_k1", "seq_mean_k1", "0.8_1.25"),
        ("turn_sum_k3", "seq_sum_k3", 0.3),
        ("turn_mean_k2", "seq_mean_k2", 0.1),
        ("turn_max_k2", "seq_max_k2", 0.4),
        ("any_turn_max_k3", "seq_max_k3", 0.4),
    ],
)
@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0])
def test_with_one_turn_a_response_rejection_is_verls_by_sequence(turn, verl, threshold, spread):
    ours, theirs = (
        correct(ONE_TURN, spread, rollout_rs=option, rollout_rs_threshold=threshold)[0].batch["response_mask"]
        for option in (turn, verl)
    )
    assert ours.tolist() == theirs.tolist()


def test_options_by_turn_and_verls_own_hold_together():
    options = {"turn_max_k3": 0.05, "seq_mean_k3": 0.12}
    together, metrics = correct(
        TURNS, rollout_rs=",".join(options), rollout_rs_threshold=",".join(map(str, options.values()))
    )
    single = [correct(TURNS, rollout_rs=name, rollout_rs_threshold=high)[0] for name, high in options.items()]
    expected = single[0].batch["response_mask"] * single[1].batch["response_mask"]
    assert together.batch["response_mask"].tolist() == expected.tolist()
    assert metrics["rollout_corr/rollout_rs_masked_fraction"] == pytest.approx(1 - float(expected.sum() / TURNS.sum()))
    assert 0 < metrics["rollout_corr/rollout_rs_turn_max_k3_turn_masked_fraction"] <= 1


def test_whatever_is_not_by_turn_is_verls():
    with pytest.raises(ValueError, match="Invalid rollout_is"):
        correct(TURNS, rollout_is="word")
    with pytest.raises(ValueError, match="Invalid rollout_rs"):
        correct(TURNS, rollout_rs="word_k1", rollout_rs_threshold=1.0)
