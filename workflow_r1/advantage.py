"""Advantages: how much better a response, or one turn of it, did than the others to the same prompt.

Shapes: B responses padded to T tokens, in turns that are the maximal runs of ones in the response mask.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import partial

import torch

from workflow_r1.credit import ESTIMATORS, OUTCOME, Credit, Turns
from workflow_r1.groups import compare_in_groups, number_groups
from workflow_r1.gsspo import turn_starts


@torch.no_grad()
def group_relative_advantages(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    groups: Iterable[Hashable],
    *,
    credit: Credit = OUTCOME,
    turn_mask: torch.Tensor | None = None,
    states: Sequence[Sequence[Hashable]] | None = None,
    normalise_by_std: bool = True,
    epsilon: float = 1e-6,
) -> torch.Tensor:
    """The advantage of each token: by default that of its response's outcome, else of its turn.

    What stands on a turn, or on the observation after it, is that turn's reward; the last turn's is the outcome.

    Args:
        token_level_rewards: (B, T).
        response_mask: (B, T), one where the policy wrote the token and it is trained on.
        groups: B labels, the same for all responses to one prompt: texts, numbers, or a (B,) tensor or array.
        credit: how what was earned is divided among the turns.
        turn_mask: (B, T) the response mask before turns were taken out of it, which says what the turns are; by default
            none was.
        states: for each response what each of its turns started from, for credit `anchors`; equal ones are compared.
        normalise_by_std: divide by the (unbiased) standard deviation plus `epsilon`.

    Returns:
        (B, T) advantages, constant over a turn and zero where the mask is.

    Raises:
        ValueError: there are not as many labels as responses, or not as many states as turns.
    """
    mask = response_mask.bool()
    starts = turn_starts(mask if turn_mask is None else turn_mask.bool())
    group = number_groups(groups, len(mask)).to(mask.device)
    if not mask.any():
        return torch.zeros_like(token_level_rewards)
    turn = (starts.cumsum(dim=1) - 1).clamp(min=0)  # of each position: it reaches to where the next starts
    last = turn[:, -1]
    rewards = token_level_rewards.new_zeros(len(mask), int(last.max()) + 1)
    rewards.scatter_add_(1, turn, token_level_rewards)
    trained = torch.zeros_like(rewards, dtype=torch.bool)
    response, position = starts.nonzero(as_tuple=True)
    trained[response, turn[response, position]] = mask[response, position]
    turns = Turns(
        rewards=rewards,
        trained=trained,
        last=last,
        group=group,
        states=None if states is None else _number_states(states, group, trained, starts.sum(dim=1)),
        compare=partial(compare_in_groups, by_std=normalise_by_std, epsilon=epsilon),
    )
    return ESTIMATORS[credit.name](turns, credit).gather(1, turn).where(mask, 0)


def _number_states(
    states: Sequence[Sequence[Hashable]], group: torch.Tensor, trained: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """(B, K) int64: the states numbered, each group's apart; those of what is not trained on do not matter."""
    kept = trained.any(dim=1)
    given = torch.tensor([len(of_response) for of_response in states])
    if len(given) != len(kept) or bool((given.to(counts.device) != counts)[kept].any()):
        raise ValueError("Every turn needs one state: pass for each response as many as it has turns.")
    labels = zip(group.tolist(), states, kept.tolist(), strict=True)
    flat = [(number, state) for number, of_response, is_kept in labels if is_kept for state in of_response]
    numbered = torch.full_like(trained, 0, dtype=torch.int64)
    there = torch.arange(trained.shape[1], device=counts.device) < (counts * kept)[:, None]
    numbered[there] = 1 + number_groups(flat, len(flat)).to(numbered.device)
    return numbered
