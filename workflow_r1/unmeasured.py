"""Numbers that may not have been measured: None, which is never a zero."""

from collections.abc import Iterable
from typing import TypeVar

Number = TypeVar("Number", int, float)

UNKNOWN = "–"
"""What stands where such a number would."""


def total(numbers: "Iterable[Number | None]") -> "Number | None":
    """Their sum, or None where one of them was not measured."""
    known = list(numbers)
    return None if any(number is None for number in known) else sum(known)  # type: ignore[arg-type, return-value]


def shown(number: float | None, form: str = ",") -> str:
    """The number in a format, or `UNKNOWN`."""
    return UNKNOWN if number is None else format(number, form)
