"""The lines of trajectory files, read whichever version of this project wrote it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Row
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from workflow_r1.errors import reason_of
from workflow_r1.evaluation.record import Record
from workflow_r1.records import Text
from workflow_r1.trajectory import EndedBy, Trajectory

T = TypeVar("T", bound=BaseModel)


class RecordedTrajectory(Trajectory):
    """A trajectory from a file. Fields that this version does not know are in `model_extra`, in turns and calls too.

    Attributes:
        ended_by: a text where this version does not know the reason, empty where none was recorded.
    """

    ended_by: EndedBy | Text = ""  # type: ignore[assignment]

    @property
    def ending(self) -> str:
        return self.ended_by.value if isinstance(self.ended_by, EndedBy) else self.ended_by


class _Result(Record):
    trajectory: RecordedTrajectory | None = None


@dataclass(frozen=True)
class Entry:
    """What a line holds.

    Attributes:
        trajectory: None where there is none: the line is broken, or an endpoint served nothing.
        fault: why there is none, or why it counts for nothing.
        result: what an evaluation recorded beside the trajectory, by name.
    """

    trajectory: RecordedTrajectory | None
    fault: str | None = None
    result: dict[str, Any] = field(default_factory=dict)


def read_entry(line: bytes) -> Entry:
    """Read a line; a broken one is an entry with a fault."""
    try:
        return Entry(trajectory := _parse(RecordedTrajectory, line), trajectory.unscored)
    except (ValueError, RecursionError) as error:
        fault = error
    try:
        result = _parse(_Result, line)
    except (ValueError, RecursionError):
        return Entry(None, f"This line is no trajectory: {_reason(fault)}.")
    found = result.trajectory
    fault_text = result.error or (found.unscored if found else "It holds no trajectory.")
    return Entry(found, fault_text, recorded(result, exclude={"trajectory", "error"}))


def recorded(record: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    """The fields that the file holds with a value: a field's default says nothing of what was measured."""
    known = record.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=exclude)
    return known | (record.model_extra or {})  # which a model that forbids such fields does not dump


def raw_lines(block: Sequence[Row]) -> bytes:
    """Lines that follow each other in a file, from their rows in the index; empty where the file has gone."""
    try:
        with Path(os.fsdecode(block[0]["path"])).open("rb") as file:
            file.seek(block[0]["start"])
            return file.read(sum(row["length"] for row in block))
    except OSError:  # gone since it was indexed
        return b""


def read_row(row: Row) -> Entry:
    """What the line holds now."""
    line = raw_lines([row])
    return read_entry(line) if line else Entry(None, "The file was written anew a moment ago: load the page again.")


def _parse(model: type[T], line: bytes) -> T:
    return model.model_validate_json(line, extra="allow")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return reason_of(error)
