"""The two ingredients of GSsPO apart: at what level the ratio is taken, and what weighs the same.

Nine losses, named `<level>_ratio_<weight>_weight`, each of `token`, `turn` and `response`, for

    actor_rollout_ref.actor.policy_loss.loss_mode=benchmarks/evidence_losses.py:turn_ratio_token_weight

Level: the log-ratio of a token is its own, or the mean over its turn or over its response. Weight: each token of a
mini-batch weighs the same, or each response, or each response and each of its turns. So `token_ratio_token_weight` is
verl's `vanilla` with `token-mean`, `response_ratio_response_weight` its `gspo`, `turn_ratio_turn_weight` is `gsspo` and
`turn_ratio_response_weight` gsspo with `subsequence_weighting=token`.
"""

from functools import partial
from typing import Any

import torch

from workflow_r1.gsspo import MAX_LOG_RATIO, Subsequences, find_subsequences

UNITS = ("token", "turn", "response")


def factorial_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
    *,
    level: str,
    weight: str,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The clipped objective of a micro-batch, negated, and its metrics; the arguments are verl's, all of (B, T).

    The gradient is that of GSPO's per-token form (arXiv 2507.18071, section 4.3) at every level.
    """
    runs = find_subsequences(response_mask)
    new, old, advantage = (runs.tokens(x).float() for x in (log_prob, old_log_prob, advantages))
    log_ratio = _mean(new.detach() - old, runs, level)
    ratio = (new - new.detach() + log_ratio).clamp(max=MAX_LOG_RATIO).exp()
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    bounded = torch.where(advantage > 0, ratio.clamp(max=1 + high), ratio.clamp(min=1 - low, max=config.clip_ratio_c))
    token_weights = _weights(runs, weight, config.global_batch_info)
    if rollout_is_weights is not None:
        token_weights = token_weights * runs.tokens(rollout_is_weights)
    value = ratio.detach()
    clipped = ((value > 1 + high) & (advantage > 0)) | ((value < 1 - low) & (advantage < 0))
    metrics = {
        "actor/pg_clipfrac": _average(clipped.float()),  # of tokens, which is comparable over the levels
        "actor/ratio_std": float(value.std(correction=0)) if len(value) else 0.0,
        "actor/ppo_kl": _average(old - new.detach()),
    }
    return -(token_weights * advantage * bounded).sum(), metrics


def _mean(values: torch.Tensor, runs: Subsequences, level: str) -> torch.Tensor:
    """(N,) -> (N,): to each token the mean over its turn or response, or its own."""
    if level == "token":
        return values
    if level == "turn":
        return runs.spread(runs.mean(values))
    response = runs.spread(runs.response)
    sums = values.new_zeros(len(runs.mask)).index_add(0, response, values)
    return (sums / runs.mask.sum(dim=1).clamp(min=1))[response]


def _weights(runs: Subsequences, weight: str, batch: dict[str, Any]) -> torch.Tensor:
    """(N,), so that the sum over micro-batches, averaged over the ranks, is the mean over the mini-batch."""
    ranks = batch.get("dp_size", 1)
    if weight == "token":
        tokens = batch.get("batch_num_tokens") or max(len(runs.of_token), 1)
        return torch.full((len(runs.of_token),), ranks / float(tokens), device=runs.positions.device)
    responses = batch.get("global_batch_size") or max(runs.num_responses, 1)
    of_turn = runs.token_weights("uniform" if weight == "turn" else "token", torch.float32)
    return runs.spread(of_turn) * ranks / responses


def _average(values: torch.Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


LOSSES = {
    f"{level}_ratio_{weight}_weight": partial(factorial_loss, level=level, weight=weight)
    for level in UNITS
    for weight in UNITS
}
globals().update(LOSSES)
