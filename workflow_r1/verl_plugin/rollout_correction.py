"""Corrections by turn among verl's rollout corrections, for any agent: two functions, named for what they replace.

    algorithm.rollout_correction.rollout_is=turn                  # or turn_product
    algorithm.rollout_correction.rollout_is_threshold=2.0         # or 0.5_2.0: weights outside are zero
    algorithm.rollout_correction.rollout_rs=turn_mean_k3          # by commas several, verl's own too
    algorithm.rollout_correction.rollout_rs_threshold=0.01

verl 0.9.1 has no registry for either (`trainer/ppo/rollout_corr_helper.py`): whatever is not by turn goes to verl.
"""

import re
from typing import Any

import torch

from workflow_r1.correction import TurnWeights, reject_turns, turn_weights
from workflow_r1.verl_plugin.upstream import parse_is_threshold, parse_rs_thresholds, replaces_verls

WEIGHTS = {"turn": "mean", "turn_product": "product"}
"""`rollout_is` by turn, and the level of each."""

REJECTIONS = re.compile(r"(?P<whole>any_)?turn_(?P<level>mean|sum|max)_(?P<estimator>k[123])(?<!max_k1)")
"""`rollout_rs` by turn; with `any_`, a turn outside takes its whole response with it."""


@replaces_verls
def compute_rollout_correction_weights(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """`(weights (B, T), metrics)` as verl's, with `rollout_is` by turn."""
    if kwargs["rollout_is"] not in WEIGHTS:
        return wrapped(*args, **kwargs)
    mask = kwargs["response_mask"]
    high, low = parse_is_threshold(kwargs["rollout_is_threshold"])
    found = turn_weights(kwargs["log_ratio"], mask, WEIGHTS[kwargs["rollout_is"]], high=high, low=low)  # type: ignore[arg-type]
    weights, metrics = found.weights, _weight_metrics(found, high, 1 / high if low is None else low)
    if kwargs.get("rollout_is_batch_normalize") and (mean := float(found.by_turn.mean())) > 0:
        weights, metrics["rollout_is_batch_norm_factor"] = weights / mean, mean
    return weights, metrics


@replaces_verls
def compute_rollout_rejection_mask(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """`(response mask, metrics)` as verl's, where some of the options of `rollout_rs` are by turn."""
    mask, options = kwargs["response_mask"], [option.strip() for option in kwargs["rollout_rs"].split(",")]
    if not any(REJECTIONS.fullmatch(option) for option in options):
        return wrapped(*args, **kwargs)
    thresholds = parse_rs_thresholds(options, kwargs["rollout_rs_threshold"])
    kept, metrics = mask, {}
    for option, bounds in thresholds.items():
        if turn := REJECTIONS.fullmatch(option):
            found = reject_turns(
                kwargs["log_ratio"],
                mask,
                turn["estimator"],  # type: ignore[arg-type]
                turn["level"],  # type: ignore[arg-type]
                high=bounds["upper"],  # type: ignore[arg-type]
                low=bounds["lower"],
                whole_responses=bool(turn["whole"]),
            )
            rest = found.response_mask
            metrics[f"rollout_rs_{option}_turn_masked_fraction"] = float(found.rejected.float().mean())
            metrics[f"rollout_rs_{option}_mean"] = float(found.divergence.mean())
            metrics[f"rollout_rs_{option}_max"] = float(found.divergence.max())
        else:
            low, high = bounds["lower"], bounds["upper"]
            rest, own = wrapped(kwargs["log_ratio"], mask, option, f"{low}_{high}" if low else str(high))
            metrics |= {name: value for name, value in own.items() if name.startswith(f"rollout_rs_{option}")}
        kept = kept * rest
    lost = (mask - kept).bool()
    metrics["rollout_rs_masked_fraction"] = float(lost.sum() / mask.sum())
    metrics["rollout_rs_seq_masked_fraction"] = float(lost.any(dim=1).float().mean())
    return kept.to(mask.dtype), metrics


def _weight_metrics(found: TurnWeights, high: float, low: float) -> dict[str, float]:
    """Under verl's names, over turns in place of tokens."""
    applied, raw = found.by_turn, found.raw
    return {
        "rollout_is_mean": float(applied.mean()),
        "rollout_is_std": float(applied.std(correction=0)),
        "rollout_is_max": float(raw.max()),
        "rollout_is_min": float(raw.min()),
        "rollout_is_ratio_fraction_high": _fraction(raw > high),
        "rollout_is_ratio_fraction_low": _fraction(raw < low),
        "rollout_is_eff_sample_size": found.effective_sample_size,
    }


def _fraction(flags: torch.Tensor) -> float:
    return float(flags.float().mean())
