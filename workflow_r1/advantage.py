"""Group-relative advantages: how much better a response, or one turn of it, did than the others to the same prompt.

The outcome is compared as in GRPO (arXiv 2402.03300), the reward of single turns as in MT-GRPO (arXiv 2505.11821).
Shapes: B responses padded to T tokens, in turns that are the maximal runs of ones in the response mask.
"""

from collections.abc import Hashable, Iterable

import torch

from workflow_r1.gsspo import turn_starts


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
    """The advantage of each token: that of its response's outcome and, with `turn_rewards`, that of its turn.

    Without `turn_rewards` the outcome is a response's summed reward. With it, the outcome is what the last turn earned;
    the reward on an earlier turn, or on the observation after it, belongs to that turn.

    Args:
        token_level_rewards: (B, T).
        response_mask: (B, T), one where the policy wrote the token.
        groups: B labels, the same for all responses to one prompt: texts, numbers, or a (B,) tensor or array.
        normalise_by_std: divide by the (unbiased) standard deviation plus `epsilon`.

    Returns:
        (B, T) advantages, constant over a turn and zero where the mask is.

    Raises:
        ValueError: there are not as many labels as responses.
    """
    mask = response_mask.bool()
    group = _number_groups(groups, len(mask)).to(mask.device)
    if not turn_rewards:
        outcome = _outcome_advantages(token_level_rewards.sum(dim=1), mask, group, normalise_by_std, epsilon)
        return outcome[:, None].where(mask, 0)
    turn = _turn_of_position(mask)
    rewards = token_level_rewards.new_zeros(len(mask), int(turn.max()) + 1 if turn.numel() else 1)
    rewards.scatter_add_(1, turn, token_level_rewards)
    last = turn[:, -1]
    outcome = _outcome_advantages(rewards.gather(1, last[:, None])[:, 0], mask, group, normalise_by_std, epsilon)
    by_turn = _turn_advantages(rewards, last, group, normalise_by_std, epsilon)
    return (outcome[:, None] + by_turn.gather(1, turn)).where(mask, 0)


def _outcome_advantages(
    outcome: torch.Tensor, mask: torch.Tensor, group: torch.Tensor, by_std: bool, epsilon: float
) -> torch.Tensor:
    """(B,) -> (B,): outcomes centred on their group's mean and divided by its standard deviation.

    A group of one keeps its reward; where all did equally well, every advantage is exactly 0. A response with nothing
    left in its mask is not trained on: it is no part of its group's statistics and gets 0. So does the only one of
    several that has something left: there is nothing to compare it with.
    """
    trained = mask.any(dim=1)
    advantage = torch.zeros_like(outcome)
    advantage[trained] = _normalise(outcome[trained], group[trained], by_std, epsilon)
    sizes = group.bincount()
    left_alone = (sizes > 1) & (group[trained].bincount(minlength=len(sizes)) == 1)
    advantage[left_alone[group]] = 0
    return advantage


def _turn_advantages(
    rewards: torch.Tensor, last: torch.Tensor, group: torch.Tensor, by_std: bool, epsilon: float
) -> torch.Tensor:
    """(B, K) rewards of turns -> (B, K): normalised over all turns of the group but the last ones, which are outcomes.

    Turns without reward count as 0. MT-GRPO's intermediate-reward term, without regard to a turn's number.
    """
    before_last = torch.arange(rewards.shape[1], device=rewards.device) < last[:, None]
    advantages = torch.zeros_like(rewards)
    advantages[before_last] = _normalise(
        rewards[before_last], group[:, None].expand_as(rewards)[before_last], by_std, epsilon
    )
    return advantages


def _turn_of_position(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) -> (B, T): each position's turn, which reaches to where the next starts, the first from 0."""
    return (turn_starts(mask).cumsum(dim=1) - 1).clamp(min=0)


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
