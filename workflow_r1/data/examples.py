"""Example: one question with its gold answers, whatever file it came from."""

from dataclasses import dataclass

from workflow_r1.data.errors import RowError


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        id: names the question; unique within one loaded source.
        golds: the accepted answers, at least one where there is no fault.
        data_source: the dataset it belongs to, such as `nq` or `hotpotqa`.
        fault: why it cannot be used; then its question and answers may be empty.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    data_source: str
    fault: RowError | None = None
