"""Metrics by turn: how a quantity differs with a turn's number in its response, and with its length.

A batch is seen in parts, by micro-batches and by data-parallel ranks, and a part may hold no turn of some number: what
is passed on is sums, of which every part has all, and the means are taken at the end. Turns are counted from 1, among
those that the response mask has.

Shapes: B responses padded to T tokens, with S turns (the maximal runs of ones in the response mask) in all.
"""

import math
from collections.abc import Mapping

import torch

from workflow_r1.correction import effective_sample_size, token_divergence
from workflow_r1.gsspo import Subsequences, find_subsequences

NUMBERS = {"1": 1, "2": 2, "3": 3, "4": 4, "5_to_8": 8, "from_9": math.inf}
LENGTHS = {
    "up_to_16_tokens": 16,
    "up_to_64_tokens": 64,
    "up_to_256_tokens": 256,
    "up_to_1024_tokens": 1024,
    "longer": math.inf,
}
"""The groups of turns, each up to and with its bound."""

GROUPS = (*NUMBERS, *LENGTHS)
COUNT = "count"


@torch.no_grad()
def turn_sums(runs: Subsequences, values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """`{quantity/group: sum}` of (S,) values over the turns of each group, and under `count` how many there are."""
    number, length = _numbers(runs), runs.lengths
    group = torch.cat([_group(number, NUMBERS), _group(length, LENGTHS) + len(NUMBERS)])
    columns = {COUNT: torch.ones_like(length), **values}
    stacked = torch.stack([column.double() for column in columns.values()])  # (quantities, S)
    sums = stacked.new_zeros(len(columns), len(GROUPS)).index_add(1, group, stacked.repeat(1, 2)).tolist()
    return {
        f"{name}/{label}": total
        for name, row in zip(columns, sums, strict=True)
        for label, total in zip(GROUPS, row, strict=True)
    }


def turn_means(sums: Mapping[str, float]) -> dict[str, float]:
    """`{turn_quantity/group: mean}` of sums that were added, or averaged, over the parts of a batch.

    Of `x_deviation`, whose squares are there as `x_deviation_square`, it is the standard deviation, `turn_x_std`.
    A group that no turn is in has no mean and is left out; `turn_fraction` says which part of all turns each group is.
    """
    means: dict[str, float] = {}
    turns = sum(sums[f"{COUNT}/{group}"] for group in NUMBERS)
    for name in dict.fromkeys(key.rpartition("/")[0] for key in sums):
        for group in GROUPS:
            if not (count := sums[f"{COUNT}/{group}"]):
                continue
            mean = sums[f"{name}/{group}"] / count
            if name == COUNT:
                means[f"turn_fraction/{group}"] = count / turns
            elif (square := sums.get(f"{name}_square/{group}")) is not None:
                means[f"turn_{name.removesuffix('_deviation')}_std/{group}"] = max(square / count - mean**2, 0.0) ** 0.5
            elif not name.endswith("_square"):
                means[f"turn_{name}/{group}"] = mean
    return means


@torch.no_grad()
def mismatch_metrics(
    log_prob: torch.Tensor, rollout_log_prob: torch.Tensor, entropy: torch.Tensor, response_mask: torch.Tensor
) -> dict[str, float]:
    """How far the trainer is from the sampler, turn by turn, before anything corrects for it.

    Args:
        log_prob, rollout_log_prob: (B, T) of the sampled tokens, as the trainer and as the sampler has them.
        entropy: (B, T) of the trainer's distribution.
        response_mask: (B, T), one where the policy wrote the token.

    Returns:
        `mismatch/…` over all turns: the effective sample size of the length-normalised weights, as a fraction of the
        turns, and the divergences k1 and k3 (`workflow_r1.correction.token_divergence`), each the mean over turns of
        a turn's mean, and of k3 the largest; `turn_mismatch/…` (k3) and `turn_entropy/…` by group. Nothing where there
        is no turn.
    """
    runs = find_subsequences(response_mask)
    if not len(runs.lengths):
        return {}
    log_ratio = runs.tokens(log_prob) - runs.tokens(rollout_log_prob)
    k1, k3 = (runs.mean(token_divergence(log_ratio, estimator)) for estimator in ("k1", "k3"))  # type: ignore[arg-type]
    sums = turn_sums(runs, {"mismatch": k3, "entropy": runs.mean(runs.tokens(entropy))})
    return {
        "mismatch/eff_sample_size": effective_sample_size(k1.neg().exp()),
        "mismatch/k1": float(k1.mean()),
        "mismatch/k3": float(k3.mean()),
        "mismatch/k3_max": float(k3.max()),
        **{name: mean for name, mean in turn_means(sums).items() if not name.startswith("turn_fraction/")},
    }


def _numbers(runs: Subsequences) -> torch.Tensor:
    """(S,): the number of each turn in its response, from 1."""
    turns = runs.response.bincount()
    before = turns.cumsum(0) - turns
    return torch.arange(1, len(runs.response) + 1, device=runs.response.device) - before[runs.response]


def _group(values: torch.Tensor, bounds: Mapping[str, float]) -> torch.Tensor:
    """(S,) integers -> (S,): which bound, the first that is not below."""
    edges = torch.tensor([bound for bound in bounds.values() if bound < math.inf], device=values.device)
    return torch.bucketize(values, edges)
