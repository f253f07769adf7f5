"""Confidence intervals, paired significance, and what several samples of one question say together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np
from numpy.typing import NDArray

from workflow_r1.answers import normalise_answer

Matrix = NDArray[np.float64]

RESAMPLES = 2_000
PERMUTATIONS = 20_000
_EXACT_UP_TO = 14  # questions that differ: 2^14 sign patterns are enumerated, more are sampled
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(groups: Sequence[Matrix], seed: int = 0) -> list[Estimate]:
    """Percentile bootstrap of column means (Efron, 1979), resampling whole questions.

    Args:
        groups: one (questions, columns) matrix a benchmark. With several, the mean is that of the benchmarks' means
            and each benchmark is resampled by itself.

    Returns:
        One estimate a column.
    """
    rng = np.random.default_rng(seed)
    means = np.mean([group.mean(axis=0) for group in groups], axis=0)
    resampled = np.zeros((RESAMPLES, groups[0].shape[1]))
    for group in groups:
        for row in resampled:
            drawn = np.bincount(rng.integers(len(group), size=len(group)), minlength=len(group))
            row += drawn @ group / (len(group) * len(groups))
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=0)
    return [Estimate(*map(float, column)) for column in zip(means, low, high, strict=True)]


def permutation_p_value(groups: Sequence[Matrix], seed: int = 0) -> float:
    """Two-sided p-value of the paired sign-flip permutation test (Fisher, 1935).

    If the two runs were equally good, each question's difference were as likely to have the other sign.

    Args:
        groups: per benchmark the differences of the two runs, one a question; the statistic is the mean of the
            benchmarks' means.
    """
    weighted = np.concatenate([np.ravel(group) / (len(group) * len(groups)) for group in groups])
    weighted = weighted[weighted != 0]
    observed = abs(weighted.sum()) * (1 - 1e-9)  # so that equal sums count as equal
    if len(weighted) <= _EXACT_UP_TO:
        signs = np.array(list(product((1, -1), repeat=len(weighted))))
        return float(np.mean(np.abs(signs @ weighted) >= observed)) if len(weighted) else 1.0
    rng = np.random.default_rng(seed)
    at_least = 0
    for _ in range(0, PERMUTATIONS, 500):
        signs = rng.integers(0, 2, size=(500, len(weighted)), dtype=np.int8) * 2 - 1
        at_least += int(np.sum(np.abs(signs @ weighted) >= observed))
    return (1 + at_least) / (1 + PERMUTATIONS)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples is right (Chen et al., arXiv 2107.03374).

    Raises:
        ValueError: `k` is more than there are samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {samples} sample(s).")
    return 1 - comb(samples - right, k) / comb(samples, k)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most of `answers` agree on after normalisation, in its first wording; the first one in a tie."""
    keys = [normalise_answer(answer) for answer in answers]
    return answers[keys.index(Counter(keys).most_common(1)[0][0])]
