"""Comparing what was earned within groups, as GRPO does the responses to one prompt (arXiv 2402.03300)."""

from collections.abc import Hashable, Iterable

import torch


def compare_in_groups(
    earned: torch.Tensor, trained: torch.Tensor, groups: torch.Tensor, *, by_std: bool, epsilon: float
) -> torch.Tensor:
    """What was earned, centred on its group's mean and divided by its standard deviation.

    A group of one keeps what it earned; where all did equally well, all get exactly 0. What is not trained on is no
    part of its group's statistics and gets 0. So does the only one of several that is: there is nothing to compare it
    with.

    Args:
        earned: (M,), by responses or by turns.
        trained: (M,) bool.
        groups: (M,) int64, from 0, the same for all that are compared with each other.
        by_std: divide by the (unbiased) standard deviation plus `epsilon`.

    Returns:
        (M,).
    """
    values, group = earned[trained], groups[trained]
    members = groups.bincount()
    size = group.bincount(minlength=len(members))
    alone = members == 1
    mean = values.new_zeros(len(members)).index_add(0, group, values) / size
    compared = values - mean.masked_fill(alone, 0)[group]
    if by_std:
        squares = values.new_zeros(len(members)).index_add(0, group, compared.square())
        std = (squares / (size - 1)).sqrt().masked_fill(size == 1, 1)
        compared = compared / (std[group] + epsilon)
    level = _all_equal(values, group, len(members)) & ~alone
    return torch.zeros_like(earned).masked_scatter(trained, compared.masked_fill(level[group], 0))


def number_groups(labels: Iterable[Hashable], count: int) -> torch.Tensor:
    """(count,) int64: labels numbered in the order in which they first appear.

    Args:
        labels: one for each response, the same for all to one prompt: texts, numbers, or a (B,) tensor or array.

    Raises:
        ValueError: there are not as many labels as responses, or they make no groups.
    """
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


def _all_equal(values: torch.Tensor, group: torch.Tensor, count: int) -> torch.Tensor:
    """(count,) bool: whether a group's values differ by rounding alone, which the division would blow up."""
    low, high = (
        values.new_zeros(count).scatter_reduce(0, group, values, extreme, include_self=False)
        for extreme in ("amin", "amax")
    )
    return high - low <= 4 * torch.finfo(values.dtype).eps * torch.maximum(low.abs(), high.abs())
