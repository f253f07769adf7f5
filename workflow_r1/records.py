"""What records of foreign text and of measurements share: they can always be written, and read after a crash."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, PlainSerializer

T = TypeVar("T")
Number = TypeVar("Number", int, float)
logger = logging.getLogger(__name__)

_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can hold and no file can."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def from_json(value: object) -> object:
    """What a text says in JSON, for fields that a flag may give; anything else as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ValueError('write a JSON object of settings, such as {"name": 1}') from None


Text = Annotated[str, AfterValidator(well_formed), PlainSerializer(well_formed)]
"""The type of a record's field that holds foreign text: whatever is assigned, the record can be written."""

UNKNOWN = "–"
"""What stands where a number would that was not measured: such a number is None, which is never a zero."""


def total(numbers: "Iterable[Number | None]") -> "Number | None":
    """Their sum, or None where one of them was not measured."""
    known = list(numbers)
    return None if any(number is None for number in known) else sum(known)  # type: ignore[arg-type, return-value]


def shown(number: float | None, form: str = ",") -> str:
    """The number in a format, or `UNKNOWN`."""
    return UNKNOWN if number is None else format(number, form)


def read_lines(path: Path, parse: Callable[[bytes], T]) -> Iterator[T]:
    """Every line of a JSON Lines file, which a process may still be writing or was writing when it was killed.

    Args:
        parse: makes a record of a line; lines that it raises ValueError on are left out, and said to be.
    """
    broken = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = parse(line)
            except (ValueError, RecursionError):
                broken.append(number)
            else:
                yield record
    if broken:
        logger.warning("%s: %d broken line(s) left out, the first is line %d.", path, len(broken), broken[0])
