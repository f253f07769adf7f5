"""Off-policy correction by turn: importance weights and rejection for a sampler that is not quite the trained policy.

The sampler's probabilities differ from the trainer's: other kernels, half precision, or weights that are some steps
old. For a turn τ the two disagree by

    mean:     ρ_τ = exp( 1/|τ| · Σ_{t∈τ} [log π_trainer(y_t) − log π_rollout(y_t)] )
    product:  ρ_τ = exp(         Σ_{t∈τ} [log π_trainer(y_t) − log π_rollout(y_t)] )

A weight ρ_τ on the turn's loss makes up for it (truncated importance sampling); a turn that is too far off can be left
out. Both treat a turn as one, as its ratio and clip do: a weight is the same for all its tokens, and a rejection takes
it away whole and leaves every other turn what it was. With one token a turn these are verl's corrections by token, with
one turn a response those by sequence (`verl.trainer.ppo.rollout_corr_helper`).

Shapes: B responses padded to T tokens, with S turns (the maximal runs of ones in the response mask) in all.

Sources: the sampler's mismatch and truncated weights, https://richardli.xyz/rl-collapse; weights that are zero outside
the bounds, IcePop (arXiv 2510.18855); units outside a trust region masked whole, TRM (arXiv 2512.23075); the
divergence estimators, http://joschu.net/blog/kl-approx.html.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from workflow_r1.gsspo import Subsequences, find_subsequences

Level = Literal["mean", "product"]
Estimator = Literal["k1", "k2", "k3"]
MAX_LOG_RATIO = 20.0  # keeps exp() finite; verl's own bound, so that the two stay comparable


@dataclass(frozen=True)
class TurnWeights:
    """Importance weights; none carries a gradient."""

    weights: torch.Tensor  # (B, T), the same for all tokens of a turn and 0 between turns
    raw: torch.Tensor  # (S,) ρ_τ, before its bounds
    by_turn: torch.Tensor  # (S,), after them

    @property
    def effective_sample_size(self) -> float:
        """As the function below, of the bounded weights."""
        return effective_sample_size(self.by_turn)


def effective_sample_size(weights: torch.Tensor) -> float:
    """(Σw)² / (S·Σw²) of (S,): 1 where all weigh the same, 1/S where one outweighs the rest; 0 where none weighs."""
    square_sum = weights.square().sum()
    return float(weights.sum().square() / (len(weights) * square_sum)) if square_sum > 0 else 0.0


def token_divergence(log_ratio: torch.Tensor, estimator: Estimator) -> torch.Tensor:
    """With r = log π_trainer − log π_rollout, elementwise: `k1` −r, `k2` r²/2, or `k3` exp(r) − 1 − r."""
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k3":
        return ratio.expm1() - ratio
    return -ratio if estimator == "k1" else ratio.square() / 2


@torch.no_grad()
def turn_weights(
    log_ratio: torch.Tensor, response_mask: torch.Tensor, level: Level, *, high: float, low: float | None = None
) -> TurnWeights:
    """Truncated importance weights by turn.

    Args:
        log_ratio: (B, T) log π_trainer − log π_rollout; what stands where the mask is zero is never read.
        response_mask: (B, T), one where the policy wrote the token.
        level: `mean`, normalised by the turn's length, or `product`.
        high: weights above it become `high`; where there is a `low`, they become 0.
        low: weights below it become 0.
    """
    runs = find_subsequences(response_mask)
    token_log_ratio = runs.tokens(log_ratio)
    by_turn = runs.mean(token_log_ratio)
    if level == "product":
        by_turn = by_turn * runs.lengths
    raw = by_turn.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    bounded = raw.clamp(max=high) if low is None else raw.where((raw >= low) & (raw <= high), 0)
    return TurnWeights(_spread(bounded, runs, log_ratio), raw, bounded)


@dataclass(frozen=True)
class Rejection:
    """Which turns are left out."""

    response_mask: torch.Tensor  # (B, T), of the mask's own type: without them
    rejected: torch.Tensor  # (S,) bool
    divergence: torch.Tensor  # (S,)
    subsequences: Subsequences  # what the (S,) tensors refer to


@torch.no_grad()
def reject_turns(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    estimator: Estimator,
    level: Literal["mean", "sum", "max"],
    *,
    high: float,
    low: float | None = None,
    whole_responses: bool = False,
) -> Rejection:
    """Leave out the turns whose divergence from the sampler is outside a trust region.

    A turn's divergence is the mean, the sum or the largest of its tokens' (`token_divergence`).

    Args:
        log_ratio: (B, T) log π_trainer − log π_rollout.
        response_mask: (B, T), one where the policy wrote the token.
        high: the largest divergence that is kept. For `k1` it bounds the ratio π_rollout/π_trainer, not its logarithm.
        low: for `k1`, the smallest such ratio; 1/high by default.
        whole_responses: leave out every turn of a response that has such a turn.
    """
    runs = find_subsequences(response_mask)
    divergence = _over_turns(token_divergence(runs.tokens(log_ratio), estimator), runs, level)
    if estimator == "k1":
        rejected = (divergence < math.log(1 / high if low is None else low)) | (divergence > math.log(high))
    else:
        rejected = divergence > high
    if whole_responses:
        hit = torch.zeros(len(response_mask), dtype=torch.bool, device=rejected.device)
        hit[runs.response[rejected]] = True
        rejected = hit[runs.response]
    kept = _spread((~rejected).to(response_mask.dtype), runs, response_mask)
    return Rejection(kept, rejected, divergence, runs)


def _over_turns(values: torch.Tensor, runs: Subsequences, level: str) -> torch.Tensor:
    """(N,) -> (S,)."""
    if level == "max":
        return values.new_full((len(runs.lengths),), -math.inf).scatter_reduce(0, runs.of_token.long(), values, "amax")
    mean = runs.mean(values)
    return mean * runs.lengths if level == "sum" else mean


def _spread(by_turn: torch.Tensor, runs: Subsequences, like: torch.Tensor) -> torch.Tensor:
    """(S,) -> (B, T): to each token the value of its turn, and 0 between turns."""
    flat = torch.zeros(like.numel(), dtype=by_turn.dtype, device=like.device)
    flat[runs.positions] = runs.spread(by_turn)
    return flat.view_as(like)
