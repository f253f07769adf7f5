"""Rows that must not be trained or evaluated on, left out and named."""

import unicodedata
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from workflow_r1.data.errors import Reason
from workflow_r1.data.examples import Example


@dataclass(frozen=True)
class Dropped:
    """One row that was left out."""

    split: str
    example: Example
    reason: Reason


def question_key(question: str) -> str:
    """What two spellings of one question have in common: all but case, white space and the mark at the end."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip("?.! ")


def clean_training(examples: Iterable[Example], evaluation: Set[str], dropped: list[Dropped]) -> Iterator[Example]:
    """Pass on what can be trained on: complete rows, each question once, none of the evaluation's.

    Args:
        evaluation: the `question_key`s of the evaluation questions.
        dropped: every other row is added to it.
    """
    seen: set[str] = set()
    for example in examples:
        key = question_key(example.question)
        reason = example.fault.reason if example.fault else None
        if reason is None and key in evaluation:
            reason = Reason.IN_EVALUATION
        if reason is None and key in seen:
            reason = Reason.DUPLICATE
        if reason is not None:
            dropped.append(Dropped("train", example, reason))
            continue
        seen.add(key)
        yield example


def clean_evaluation(examples: Iterable[Example], dropped: list[Dropped]) -> Iterator[Example]:
    """Pass on what can be evaluated on: complete rows, each once.

    A question that comes back with other gold answers stays, and so does one that two datasets share: PopQA asks one
    question about several namesakes, and a benchmark's figures are over all of its rows.
    """
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for example in examples:
        row = (example.data_source, question_key(example.question), example.golds)
        reason = example.fault.reason if example.fault else (Reason.DUPLICATE if row in seen else None)
        if reason is not None:
            dropped.append(Dropped("test", example, reason))
            continue
        seen.add(row)
        yield example
