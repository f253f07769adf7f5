"""Example: one question with its gold answers, whatever file it came from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        id: names the question; unique within one loaded source.
        golds: the accepted answers, at least one.
        data_source: the dataset it belongs to, such as `nq` or `hotpotqa`.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    data_source: str
