"""Answer metrics and the reward of a trajectory.

The reward reads the structured turns, never the transcript: an answer counts only where the policy
itself wrote it, so nothing that an operator returns can earn anything.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from workflow_r1.trajectory import EndedBy, Trajectory

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """SQuAD v1.1's normalisation: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Iterable[str]) -> float:
    """1.0 if `answer` equals any gold answer after normalisation, else 0.0."""
    return _best(answer, golds, lambda prediction, gold: float(prediction == gold))


def substring_match(answer: str, golds: Iterable[str]) -> float:
    """1.0 if any gold answer stands, word for word, inside `answer` after normalisation, else 0.0."""
    return _best(answer, golds, lambda prediction, gold: float(bool(gold) and f" {gold} " in f" {prediction} "))


def f1_score(answer: str, golds: Iterable[str]) -> float:
    """Highest word-overlap F1 of `answer` with any gold answer, in [0, 1]."""
    return _best(answer, golds, _word_f1)


def _best(answer: str, golds: Iterable[str], metric: Callable[[str, str], float]) -> float:
    prediction = normalise_answer(answer)
    return max((metric(prediction, normalise_answer(gold)) for gold in golds), default=0.0)


def _word_f1(prediction: str, gold: str) -> float:
    predicted, expected = prediction.split(), gold.split()
    if not predicted or not expected:
        return float(predicted == expected)
    overlap = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * overlap / (len(predicted) + len(expected))


class RewardWeights(BaseModel):
    """What each outcome is worth; the defaults are the reference recipe's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact_match: float = 1.0
    f1: float = 0.0
    malformed: float = -0.5
    no_answer: float = -1.0


def score_trajectory(
    trajectory: Trajectory, golds: Iterable[str], weights: RewardWeights | None = None
) -> dict[str, float]:
    """Score one trajectory.

    Returns:
        `reward`, what the policy is trained on, and its parts as plain numbers: `acc` (exact match; verl's
        name for the core metric), `f1`, `sub_em`, `malformed` (any malformed turn), `no_answer`,
        `operator_failure`, `calls` and `turns`.

    An infrastructure fault is not the policy's doing: a trajectory that an operator failure ended has reward 0,
    and the agent loop leaves it out of the loss.
    """
    weights = weights or RewardWeights()
    golds = list(golds)
    answer = trajectory.answer
    failed = trajectory.ended_by is EndedBy.OPERATOR_FAILURE
    acc = exact_match(answer, golds) if answer is not None else 0.0
    f1 = f1_score(answer, golds) if answer is not None else 0.0
    malformed = float(trajectory.num_malformed > 0)
    if failed:
        reward = 0.0
    elif answer is None:
        reward = weights.no_answer
    else:
        reward = weights.exact_match * acc + weights.f1 * f1 + weights.malformed * malformed
    return {
        "reward": reward,
        "acc": acc,
        "f1": f1,
        "sub_em": substring_match(answer, golds) if answer is not None else 0.0,
        "malformed": malformed,
        "no_answer": float(answer is None),
        "operator_failure": float(failed),
        "calls": float(len(trajectory.calls)),
        "turns": float(len(trajectory.turns)),
    }
