"""How well an answer agrees with gold answers."""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

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
