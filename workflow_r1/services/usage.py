"""Counting what operator calls take, per operator: of a trajectory, of a step, of a run."""

import math
from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, Field
from rich.table import Table

from workflow_r1.records import UNKNOWN
from workflow_r1.services.result import OperatorResult

_SUMMED = (
    "failed",
    "rejected",
    "requests",
    "retries",
    "reasks",
    "cache_hits",
    "prompt_tokens",
    "completion_tokens",
    "cost",
)
_GROWTH = math.log(1.05)


class Latencies(BaseModel):
    """A histogram of seconds in buckets 5 % wide: bounded in size, and it can be added to another."""

    buckets: Counter[int] = Field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        self.buckets[round(math.log(max(seconds, 1e-6)) / _GROWTH)] += 1

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` % of the calls stay within, to 2.5 %; 0 where there are none."""
        rank = math.ceil(percent / 100 * self.buckets.total())
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return math.exp(bucket * _GROWTH)
        return 0.0


class OperatorUsage(BaseModel):
    """Sums over the calls of one operator; the fields are those of `OperatorResult`.

    Attributes:
        uncounted: calls whose tokens the endpoint did not count: the sums of tokens are without them.
        unpriced: calls whose cost is therefore unknown: `cost` is without them.
        latencies: of the calls that made a request.
    """

    calls: int = 0
    failed: int = 0
    rejected: int = 0
    requests: int = 0
    retries: int = 0
    reasks: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    uncounted: int = 0
    unpriced: int = 0
    latencies: Latencies = Field(default_factory=Latencies)

    def add(self, result: OperatorResult) -> None:
        self.calls += 1
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + (getattr(result, name) or 0))
        self.uncounted += result.prompt_tokens is None or result.completion_tokens is None
        self.unpriced += result.cost is None
        if result.requests:
            self.latencies.add(result.seconds)

    def merge(self, other: "OperatorUsage") -> None:
        for name in ("calls", *_SUMMED, "uncounted", "unpriced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latencies.buckets.update(other.latencies.buckets)


class UsageMeter(BaseModel):
    """Usage by operator. Goes to JSON and back, so that processes can send it to one another."""

    operators: dict[str, OperatorUsage] = {}

    @classmethod
    def of(cls, results: Iterable[OperatorResult]) -> "UsageMeter":
        """The usage of some results, such as a trajectory's."""
        meter = cls()
        for result in results:
            meter.add(result)
        return meter

    def add(self, result: OperatorResult) -> None:
        self.operators.setdefault(result.operator, OperatorUsage()).add(result)

    def merge(self, other: "UsageMeter") -> None:
        for name, usage in other.operators.items():
            self.operators.setdefault(name, OperatorUsage()).merge(usage)

    @property
    def total(self) -> OperatorUsage:
        total = OperatorUsage()
        for usage in self.operators.values():
            total.merge(usage)
        return total

    def metrics(self, prefix: str = "operators") -> dict[str, float]:
        """Flat figures for a tracker: `operators/Review/calls`, `operators/total/seconds_p95`, ...

        Sums of tokens and cost that lack some calls are left out.
        """
        figures: dict[str, float] = {}
        for name, usage in {**self.operators, "total": self.total}.items():
            unknown = {"prompt_tokens", "completion_tokens"} if usage.uncounted else set()
            unknown |= {"cost"} if usage.unpriced else set()
            for field in ("calls", *_SUMMED, "uncounted"):
                if field not in unknown:
                    figures[f"{prefix}/{name}/{field}"] = getattr(usage, field)
            for percent in (50, 95, 99):
                figures[f"{prefix}/{name}/seconds_p{percent}"] = usage.latencies.percentile(percent)
        return figures


def usage_table(meter: UsageMeter) -> Table:
    """What operator calls took, an operator a row; fits into 80 columns."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("operator")
    for column in ("calls", "failed", "retries", "cached", "tokens", "p50/95/99 s", "US$"):
        table.add_column(column, justify="right")
    rows = sorted(meter.operators.items())
    for name, used in [*rows, ("total", meter.total)]:
        figures = (used.calls, used.failed, used.retries, used.cache_hits)
        tokens = _at_least(used.prompt_tokens + used.completion_tokens, ",", used.uncounted)
        seconds = "/".join(f"{used.latencies.percentile(percent):.2g}" for percent in (50, 95, 99))
        cost = _at_least(used.cost, ".4f", used.unpriced)
        table.add_row(name, *(f"{figure:,}" for figure in figures), tokens, seconds, cost)
    return table


def _at_least(known: float, form: str, lacking: int) -> str:
    """A sum, and whether it lacks calls; where it lacks all that counts, it is unknown."""
    if not lacking:
        return format(known, form)
    return f"≥ {known:{form}}" if known else UNKNOWN
