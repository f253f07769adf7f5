"""Reading JSON Lines files that a process may still be writing, or was writing when it was killed."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)


def read_lines(path: Path, parse: Callable[[bytes], T]) -> Iterator[T]:
    """Every line of a file through `parse`; those that it raises ValueError on are left out, and said to be."""
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
