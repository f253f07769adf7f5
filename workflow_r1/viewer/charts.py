"""Lines over steps and bars over time, as the numbers that an SVG is made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from workflow_r1.records import UNKNOWN
from workflow_r1.trajectory import Turn

WIDTH, HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 8, 8, 22


@dataclass(frozen=True)
class Dot:
    """A value in the picture's coordinates, and in words."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Values by step.

    Attributes:
        lines: dots by the series' name.
        levels: the marks of the value axis: where, and what they say.
    """

    title: str
    lines: Mapping[str, list[Dot]]
    levels: list[tuple[float, str]]
    first: int
    last: int


def chart(title: str, series: Mapping[str, Mapping[int, float]]) -> Chart | None:
    """A chart of `series`, values by step; what is no finite number is left out. None where nothing is left."""
    finite = {
        name: {step: value for step, value in points.items() if math.isfinite(value)} for name, points in series.items()
    }
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    steps = [step for points in finite.values() for step in points]
    values = [value for points in finite.values() for value in points.values()]
    first, last, low, high = min(steps), max(steps), min(0.0, *values), max(values)
    if high == low:
        high = low + 1.0

    def x(step: int) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    lines = {
        name: [
            Dot(round(x(step), 1), round(y(value), 1), f"{name}, step {step}: {value:.4g}")
            for step, value in sorted(points.items())
        ]
        for name, points in finite.items()
    }
    middle = (low + high) / 2
    return Chart(title, lines, [(round(y(v), 1), f"{v:.3g}") for v in (low, middle, high)], first, last)


@dataclass(frozen=True)
class Bar:
    """A span of a trajectory's time, in percent of all of it.

    Attributes:
        kind: `generation` or `operators`.
    """

    turn: int
    kind: str
    start: float
    width: float
    label: str


def waterfall(turns: Sequence[Turn]) -> list[Bar]:
    """What the turns took, one after the other; empty where their times were not recorded."""
    spans = [
        (number, kind, seconds)
        for number, turn in enumerate(turns, start=1)
        for kind, seconds in (("generation", turn.generate_seconds), ("operators", turn.operator_seconds))
    ]
    total = sum(seconds for _, _, seconds in spans)
    if not total or not math.isfinite(total):
        return []
    starts = accumulate((seconds for _, _, seconds in spans), initial=0.0)
    return [
        Bar(number, kind, round(100 * start / total, 2), round(100 * seconds / total, 2), f"{kind} {seconds:.2f} s")
        for (number, kind, seconds), start in zip(spans, starts, strict=False)
        if seconds
    ]


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a format, `UNKNOWN` where it was not measured."""
    return UNKNOWN if value is None else format(value, form)
