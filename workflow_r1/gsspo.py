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
from collections.abc import Hashable, Iterable
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
    starts = _starts(mask)
    positions = mask.flatten().nonzero()[:, 0]
    of_token = starts.flatten().index_select(0, positions).cumsum(0, dtype=torch.int32) - 1
    response = starts.nonzero()[:, 0]
    return Subsequences(mask, positions, of_token, response, of_token.bincount(minlength=len(response)))


def _starts(mask: torch.Tensor) -> torch.Tensor:
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
    clipped_low: torch.Tensor  # (S,) bool, s_k < 1 − ε_low and Â (of the first token) negative: no gradient is left
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
    weights = [] if rollout_is_weights is None else [rollout_is_weights]
    shapes = {tuple(x.shape) for x in (log_prob, old_log_prob, advantages, response_mask, *weights)}
    if len(shapes) > 1 or log_prob.dim() != 2:
        raise ValueError(
            f"Log-probs, advantages, mask and rollout weights need one common shape (B, T); got {sorted(shapes)}."
        )
    if not clip_dual > 1:
        raise ValueError(f"The dual clip bounds ratios from above and needs to be more than 1; got {clip_dual:g}.")

    runs = find_subsequences(response_mask)
    dtype = torch.promote_types(log_prob.dtype, torch.float32)
    new, old, advantage = (runs.tokens(x).to(dtype) for x in (log_prob, old_log_prob, advantages))

    token_log_ratio = new.detach() - old
    log_ratio = runs.mean(token_log_ratio)
    token_ratio = (new - new.detach() + runs.spread(log_ratio)).clamp(max=MAX_LOG_RATIO).exp()
    # The minimum bounds s from above where Â is positive and from below where it is negative; there c does from above.
    bounded = torch.where(
        advantage > 0,
        token_ratio.clamp(max=1 + clip_high),
        token_ratio.clamp(min=1 - clip_low, max=clip_dual),
    )
    token_weight = runs.spread(runs.token_weights(weighting, dtype))
    if rollout_is_weights is not None:
        token_weight = token_weight * runs.tokens(rollout_is_weights)
    if num_responses is None:
        num_responses = max(runs.num_responses, 1)

    ratio = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    first = advantage[runs.lengths.cumsum(0) - runs.lengths]
    return GSsPOLoss(
        loss=-(token_weight * advantage * bounded).sum() / num_responses,
        subsequences=runs,
        ratio=ratio,
        clipped_low=(ratio < 1 - clip_low) & (first < 0),
        clipped_high=(ratio > 1 + clip_high) & (first > 0),
        clipped_dual=(ratio > clip_dual) & (first < 0),
        approx_kl=-token_log_ratio.sum() / max(len(token_log_ratio), 1),
    )


@torch.no_grad()
def group_relative_advantages(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    groups: Iterable[Hashable],
    *,
    normalise_by_std: bool = True,
    turn_rewards: bool = False,
    epsilon: float = 1e-6,
) -> torch.Tensor:
    """How much better each response did than the other responses to its prompt.

    The outcome, a response's summed reward, is centred on the group's mean and divided by its standard deviation, as
    in GRPO (arXiv 2402.03300). A group of one keeps its reward; where all did equally well, every advantage is exactly
    0. A response with nothing left in its mask is not trained on: it is no part of its group's statistics and gets 0.
    So does the only one of several that has something left: there is nothing to compare it with.

    With `turn_rewards`, only the reward from a response's last sub-sequence onwards is the outcome. The reward on an
    earlier sub-sequence, or on the observation after it, belongs to that turn: it is normalised in the same way over
    all such turns of the group, those without reward included, and added to the advantage of that turn's tokens.
    This is the intermediate-reward term of MT-GRPO (arXiv 2505.11821), without regard to a turn's number.

    Args:
        token_level_rewards: (B, T).
        response_mask: (B, T), one where the policy wrote the token.
        groups: B labels, the same for all responses to one prompt: texts, numbers, or a (B,) tensor or array.
        normalise_by_std: divide by the (unbiased) standard deviation plus `epsilon`.

    Returns:
        (B, T) advantages, constant over a sub-sequence and zero where the mask is.

    Raises:
        ValueError: there are not as many labels as responses.
    """
    mask = response_mask.bool()
    trained = mask.any(dim=1)
    group = _number_groups(groups, len(mask)).to(mask.device)

    # The turn that each position belongs to: a turn reaches to where the next one starts, the first from position 0.
    turn = (_starts(mask).cumsum(dim=1) - 1).clamp(min=0) if turn_rewards else torch.zeros_like(mask, dtype=torch.int64)
    last = turn[:, -1:]

    outcome = token_level_rewards.where(turn == last, 0).sum(dim=-1)
    advantage = torch.zeros_like(outcome)
    advantage[trained] = _normalise(outcome[trained], group[trained], normalise_by_std, epsilon)
    sizes = group.bincount()
    left_alone = (sizes > 1) & (group[trained].bincount(minlength=len(sizes)) == 1)
    advantage[left_alone[group]] = 0
    advantages = advantage[:, None].expand_as(token_level_rewards)

    if turn_rewards and (num_turns := int(last.max()) + 1) > 1:
        rewards = token_level_rewards.new_zeros(len(mask), num_turns).scatter_add(1, turn, token_level_rewards)
        before_last = torch.arange(num_turns, device=mask.device) < last
        turn_advantage = torch.zeros_like(rewards)
        turn_advantage[before_last] = _normalise(
            rewards[before_last], group[:, None].expand_as(rewards)[before_last], normalise_by_std, epsilon
        )
        advantages = advantages + turn_advantage.gather(1, turn)
    return advantages.where(mask, 0)


def _number_groups(labels: Iterable[Hashable], count: int) -> torch.Tensor:
    """(count,) int64: labels numbered in the order in which they first appear."""
    if isinstance(labels, torch.Tensor):
        labels = labels.cpu()
    numbers: dict[Hashable, int] = {}
    # A tensor is equal to nothing but itself as a key, and so is NaN: every row would be a group of its own.
    try:
        plain = [label.item() if hasattr(label, "item") else label for label in labels]
        group = [numbers.setdefault(label, len(numbers)) for label in plain]
    except (TypeError, ValueError, RuntimeError):
        raise ValueError("A group label is one text or number for each response.") from None
    if any(label != label for label in plain):
        raise ValueError("A group label is NaN, which is equal to no other.")
    if len(group) != count:
        raise ValueError(f"Every response needs one group label; got {len(group)} labels for {count} responses.")
    return torch.tensor(group, dtype=torch.int64)


def _normalise(values: torch.Tensor, group: torch.Tensor, by_std: bool, epsilon: float) -> torch.Tensor:
    """Centre (M,) values on the mean of their group, and scale them by its standard deviation."""
    normalised = values.clone()
    mean: torch.Tensor | float
    std: torch.Tensor | float
    for members in group.argsort(stable=True).split(group.bincount().tolist()):
        if len(members) < 2:
            mean, std = 0.0, 1.0
        elif _all_equal(values[members]):
            normalised[members] = 0
            continue
        else:
            mean, std = values[members].mean(), values[members].std()
        normalised[members] -= mean
        if by_std:
            normalised[members] /= std + epsilon
    return normalised


def _all_equal(values: torch.Tensor) -> bool:
    """Whether values differ by rounding alone, which a division by their standard deviation would blow up."""
    return bool(values.max() - values.min() <= 4 * torch.finfo(values.dtype).eps * values.abs().max())
