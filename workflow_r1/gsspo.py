"""GSsPO, group sub-sequence policy optimisation: one importance ratio for each turn of a response.

The policy writes a response in turns, and observations it did not write stand between them. PPO compares the new
policy with the old one token by token, GSPO over the whole response; here each turn, a sub-sequence τ, is compared
and clipped as one unit, because a turn is what the policy decides as a whole:

    s_k  =  exp( 1/|τ_k| · Σ_{t∈τ_k} [log π_θ(y_t) − log π_old(y_t)] )
    J    =  mean over responses i of   mean over the K_i sub-sequences k of response i of
            min( s_k · Â ,  clip(s_k, 1 − ε_low, 1 + ε_high) · Â )     where Â ≥ 0
            max( the same ,  c · Â )                                   where Â < 0

so that a long turn weighs no more than a short one, and a response of many turns no more than one of few. The second
line, the dual clip, keeps a bad turn that became far more likely from outweighing all others. With one sub-sequence a
response and no dual clip (c = ∞) this is GSPO, with one token a sub-sequence it is PPO's ratio and clips.

A sub-sequence is a maximal run of ones in the response mask, so nothing but the mask is needed to find it. Shapes:
B responses padded to T tokens, of which N are valid (mask one) and form S sub-sequences. Everything is computed on the
N valid tokens alone: whatever stands at a masked position, NaN included, is never read.

Sources: Workflow-R1 (arXiv 2602.01202); GSPO, whose per-token form is used (arXiv 2507.18071); AT²PO, prior work on
ratios and clipping by turn (arXiv 2601.04767); the dual clip (arXiv 1912.09729).
"""

import math
from dataclasses import dataclass

import torch

WEIGHTINGS = ("uniform", "token")
MAX_LOG_RATIO = 10.0  # keeps exp() finite; the same bound as verl's gspo, so that the two stay comparable


@dataclass(frozen=True)
class Subsequences:
    """The maximal runs of ones in a response mask, in row-major order."""

    mask: torch.Tensor  # (B, T) bool
    positions: torch.Tensor  # (N,) int64, where the valid tokens stand in the flattened mask
    of_token: torch.Tensor  # (N,) int32, the number of the sub-sequence that each valid token belongs to
    response: torch.Tensor  # (S,) int64, the response that each sub-sequence belongs to
    lengths: torch.Tensor  # (S,) int64, tokens in each sub-sequence

    @property
    def num_responses(self) -> int:
        """How many responses have a sub-sequence at all."""
        return int(self.mask.any(dim=1).sum())

    def tokens(self, values: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (N,): the valid positions; the gradient of all others is exactly zero."""
        return values.flatten().index_select(0, self.positions)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """(N,) -> (S,): the mean over the tokens of each sub-sequence."""
        return values.new_zeros(len(self.lengths)).index_add(0, self.of_token, values) / self.lengths

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(S,) -> (N,): to each token the value of its sub-sequence."""
        return values.index_select(0, self.of_token)

    def token_weights(self, weighting: str, dtype: torch.dtype) -> torch.Tensor:
        """(S,): what each token of a sub-sequence weighs inside its response, where the weights sum to one.

        `uniform`: 1/(K_i·|τ_k|), all sub-sequences of a response weigh the same; `token`: 1/Σ_k|τ_k|, all tokens do.
        """
        check_weighting(weighting)
        if weighting == "token":
            divisor = self.mask.sum(dim=1)[self.response]
        else:
            divisor = self.response.bincount()[self.response] * self.lengths
        return divisor.to(dtype).reciprocal()


def check_weighting(weighting: str) -> None:
    """Raise ValueError unless `weighting` is one that is known."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"Sub-sequences are weighted by one of {', '.join(WEIGHTINGS)}, not by {weighting!r}.")


def find_subsequences(response_mask: torch.Tensor) -> Subsequences:
    """Segment a (B, T) mask of zeros and ones, of any dtype, into its maximal runs of ones."""
    mask = response_mask.bool()
    starts = turn_starts(mask)
    positions = mask.flatten().nonzero()[:, 0]
    of_token = starts.flatten().index_select(0, positions).cumsum(0, dtype=torch.int32) - 1
    response = starts.nonzero()[:, 0]
    return Subsequences(mask, positions, of_token, response, of_token.bincount(minlength=len(response)))


def turn_starts(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) bool -> (B, T) bool: where a run of ones begins."""
    starts = mask.clone()
    starts[:, 1:] &= ~mask[:, :-1]
    return starts


@dataclass(frozen=True)
class GSsPOLoss:
    """The loss of a batch and what is worth logging about it; only `loss` carries a gradient."""

    loss: torch.Tensor  # scalar, to be minimised
    subsequences: Subsequences  # what the (S,) tensors refer to
    ratio: torch.Tensor  # (S,) s_k
    advantage: torch.Tensor  # (S,) Â of the first token
    clipped_low: torch.Tensor  # (S,) bool, s_k < 1 − ε_low and Â negative: no gradient is left
    clipped_high: torch.Tensor  # (S,) bool, s_k > 1 + ε_high and Â positive: likewise
    clipped_dual: torch.Tensor  # (S,) bool, s_k > c and Â negative: likewise
    approx_kl: torch.Tensor  # scalar, the mean of log π_old − log π_θ over the valid tokens


def gsspo_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    clip_dual: float = math.inf,
    weighting: str = "uniform",
    rollout_is_weights: torch.Tensor | None = None,
    num_responses: float | None = None,
) -> GSsPOLoss:
    """The clipped sub-sequence objective, negated.

    Each token carries its sub-sequence's ratio as a value and its own log-probability's gradient,

        s_{k,t} = sg[s_k] · π_θ(y_t) / sg[π_θ(y_t)]          (sg: no gradient; GSPO, section 4.3)

    which for one advantage a sub-sequence has the value and the gradient of the formula at the top of this file, and
    also allows advantages that differ from token to token.

    Args:
        log_prob: (B, T) log π_θ; half precision is raised to float32.
        old_log_prob: (B, T) log π_old.
        advantages: (B, T).
        response_mask: (B, T), one where the policy wrote the token.
        clip_low, clip_high: ε_low and ε_high.
        clip_dual: c, above 1; by default there is no dual clip.
        weighting: what sub-sequences weigh inside a response, see `Subsequences.token_weights`.
        rollout_is_weights: (B, T) factors on the token losses that correct for a rollout policy other than π_old.
        num_responses: the number of responses the mean is over where this batch is only a part of it; by default
            the responses here that are not empty.

    Raises:
        ValueError: shapes differ, c is not above 1, or an unknown weighting.
    """
    if not clip_dual > 1:
        raise ValueError(f"The dual clip bounds ratios from above and needs to be more than 1; got {clip_dual:g}.")
    batch = _Batch.of(log_prob, old_log_prob, advantages, response_mask, rollout_is_weights)
    # The minimum bounds s from above where Â is positive and from below where it is negative; there c does from above.
    bounded = torch.where(
        batch.advantage > 0,
        batch.token_ratio.clamp(max=1 + clip_high),
        batch.token_ratio.clamp(min=1 - clip_low, max=clip_dual),
    )
    ratio, first = batch.ratio, batch.first_advantage
    return GSsPOLoss(
        loss=batch.loss(bounded, weighting, num_responses),
        subsequences=batch.runs,
        ratio=ratio,
        advantage=first,
        clipped_low=(ratio < 1 - clip_low) & (first < 0),
        clipped_high=(ratio > 1 + clip_high) & (first > 0),
        clipped_dual=(ratio > clip_dual) & (first < 0),
        approx_kl=batch.approx_kl,
    )


def soft_gsspo_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    *,
    tau_positive: float,
    tau_negative: float,
    weighting: str = "uniform",
    rollout_is_weights: torch.Tensor | None = None,
    num_responses: float | None = None,
) -> GSsPOLoss:
    """GSsPO with SAPO's soft gate (arXiv 2511.20347) in place of the clip: nothing is cut off, all of it fades.

    The objective of a turn is f(s_k) · Â with f(s) = 4/τ · sigmoid(τ · (s − 1)). At s = 1 its gradient is that of
    s · Â; the further s is from 1 the less is left of it, and the larger τ the sooner. As τ goes to 0 the gradient
    becomes that of the unclipped objective.

    Args:
        tau_positive, tau_negative: τ where Â is positive, and elsewhere; above 0.

    The other arguments, and what is raised, are those of `gsspo_loss`. Nothing is clipped, so that is what is returned.
    """
    if not (tau_positive > 0 and tau_negative > 0):
        raise ValueError(f"The soft gate needs temperatures above 0; got {tau_positive:g} and {tau_negative:g}.")
    batch = _Batch.of(log_prob, old_log_prob, advantages, response_mask, rollout_is_weights)
    tau = torch.full_like(batch.advantage, tau_negative).masked_fill(batch.advantage > 0, tau_positive)
    gated = 4 / tau * torch.sigmoid(tau * (batch.token_ratio - 1))
    nothing = torch.zeros_like(batch.ratio, dtype=torch.bool)
    return GSsPOLoss(
        loss=batch.loss(gated, weighting, num_responses),
        subsequences=batch.runs,
        ratio=batch.ratio,
        advantage=batch.first_advantage,
        clipped_low=nothing,
        clipped_high=nothing,
        clipped_dual=nothing,
        approx_kl=batch.approx_kl,
    )


@dataclass(frozen=True)
class _Batch:
    """What both losses start from; see `gsspo_loss` for the arguments."""

    runs: Subsequences
    token_ratio: torch.Tensor  # (N,) s_{k,t}, which carries the gradient
    ratio: torch.Tensor  # (S,) s_k
    advantage: torch.Tensor  # (N,)
    weights: torch.Tensor | None  # (N,) of the rollout correction
    approx_kl: torch.Tensor  # scalar

    @classmethod
    def of(
        cls,
        log_prob: torch.Tensor,
        old_log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        rollout_is_weights: torch.Tensor | None,
    ) -> "_Batch":
        weights = [] if rollout_is_weights is None else [rollout_is_weights]
        shapes = {tuple(x.shape) for x in (log_prob, old_log_prob, advantages, response_mask, *weights)}
        if len(shapes) > 1 or log_prob.dim() != 2:
            raise ValueError(
                f"Log-probs, advantages, mask and rollout weights need one common shape (B, T); got {sorted(shapes)}."
            )
        runs = find_subsequences(response_mask)
        dtype = torch.promote_types(log_prob.dtype, torch.float32)
        new, old, advantage = (runs.tokens(x).to(dtype) for x in (log_prob, old_log_prob, advantages))
        token_log_ratio = new.detach() - old
        log_ratio = runs.mean(token_log_ratio)
        return cls(
            runs=runs,
            token_ratio=(new - new.detach() + runs.spread(log_ratio)).clamp(max=MAX_LOG_RATIO).exp(),
            ratio=log_ratio.clamp(max=MAX_LOG_RATIO).exp(),
            advantage=advantage,
            weights=None if rollout_is_weights is None else runs.tokens(rollout_is_weights),
            approx_kl=-token_log_ratio.sum() / max(len(token_log_ratio), 1),
        )

    @property
    def first_advantage(self) -> torch.Tensor:
        """(S,): of the first token of each sub-sequence."""
        return self.advantage[self.runs.lengths.cumsum(0) - self.runs.lengths]

    def loss(self, bounded_ratio: torch.Tensor, weighting: str, num_responses: float | None) -> torch.Tensor:
        """The objective of (N,) bounded ratios, negated: the mean over responses of the mean over their turns."""
        token_weight = self.runs.spread(self.runs.token_weights(weighting, self.advantage.dtype))
        if self.weights is not None:
            token_weight = token_weight * self.weights
        if num_responses is None:
            num_responses = max(self.runs.num_responses, 1)
        return -(token_weight * self.advantage * bounded_ratio).sum() / num_responses
