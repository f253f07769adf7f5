"""Example: one question with its gold answers, whatever file it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workflow_r1.data.errors import RowError


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        id: names the question; unique within one loaded source.
        golds: the accepted answers, at least one where there is no fault.
        data_source: the dataset it belongs to, such as `nq` or `hotpotqa`.
        extra_info: verl's column of that name, where the data has it.
        fault: why it cannot be used; then its question and answers may be empty.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    data_source: str
    fault: RowError | None = None
    extra_info: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def row(self) -> dict[str, Any]:
        """What a reward function is passed as the row."""
        return {
            "id": self.id,
            "question": self.question,
            "data_source": self.data_source,
            "extra_info": self.extra_info,
        }
