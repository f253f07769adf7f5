"""Which trajectories are asked for, as an address says it and as SQL does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workflow_r1.records import Text
from workflow_r1.viewer.sources import Part

Whole = Annotated[int, Field(ge=0, le=2**62)]
"""A number that an address may hold: SQLite takes it."""


class Slice(BaseModel):
    """Some of the trajectories of a source; what is None is not asked for.

    Attributes:
        source: the path of a source.
    """

    model_config = ConfigDict(frozen=True)

    source: Path | None = None
    part: Part | None = None
    step: Whole | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        """A field of a form that was left empty."""
        return None if value == "" else value

    def conditions(self) -> Iterator[tuple[str, Any]]:
        if self.source is not None:
            yield "f.source = ?", os.fsencode(self.source)
        if self.part is not None:
            yield "f.part = ?", self.part
        if self.step is not None:
            yield "f.step = ?", self.step


class Filter(Slice):
    """A list's filter and order.

    Attributes:
        data: the data source of the question.
        ended: how the trajectory ended; `fault` finds the lines that are none or count for nothing.
        text: what the question, a thought, a call, an observation or the answer contains, in any case of letters.
    """

    data: Text | None = None
    ended: Text | None = None
    least_reward: float | None = None
    most_reward: float | None = None
    least_calls: Whole | None = None
    operator: Text | None = None
    text: Text | None = None
    sort: str | None = None

    def conditions(self) -> Iterator[tuple[str, Any]]:
        yield from super().conditions()
        if self.data is not None:
            yield "t.data = ?", self.data
        if self.ended == "fault":
            yield "t.fault IS NOT ?", None
        elif self.ended is not None:
            yield "t.ended = ?", self.ended
        if self.least_reward is not None:
            yield "t.reward >= ?", self.least_reward
        if self.most_reward is not None:
            yield "t.reward <= ?", self.most_reward
        if self.least_calls is not None:
            yield "t.calls >= ?", self.least_calls
        if self.operator is not None:
            yield "instr(char(10) || t.operators, char(10) || ? || char(10))", self.operator


def where(wanted: Slice, *condition: Any) -> tuple[str, tuple]:
    """`WHERE …` and its values, with one condition and its value more where one is given."""
    pairs = [*wanted.conditions(), *([condition] if condition else [])]
    clause = " AND ".join(text for text, _ in pairs)
    return f"WHERE {clause}" if clause else "", tuple(value for _, value in pairs)
