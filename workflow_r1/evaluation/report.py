"""Tables of runs, for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from workflow_r1.evaluation.statistics import Estimate
from workflow_r1.evaluation.summary import REWARD, BenchmarkSummary, Difference, Summary
from workflow_r1.records import UNKNOWN
from workflow_r1.reward import acc_first, core_part
from workflow_r1.system.terminal import printable
from workflow_r1.trajectory import EndedBy

AVERAGE = "average"
_SERVED = set(EndedBy) - {EndedBy.OPERATOR_FAILURE}  # a failure is in no figure but the count of what was not served
_COSTS = ("calls", "policy tokens", "operator tokens", "US$ / 1000")


@dataclass(frozen=True)
class Grid:
    """A table of text: the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_rich(self) -> Table:
        table = Table(title=Text(self.title), title_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(Text(name), justify="right" if number else "left", no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def to_markdown(self) -> str:
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        body = "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)
        return f"**{printable(self.title)}**\n\n{body}\n"


def _markdown(cell: str) -> str:
    return printable(cell).replace("|", "\\|").replace("\n", " ")


def run_grids(summary: Summary) -> list[Grid]:
    """One run: scores, what they cost, and how trajectories ended; a row a benchmark."""
    rows = table_rows(summary)
    names = list(next((row.figures for row in rows.values() if row.figures), {}))
    scores = {
        **{f"{REWARD}{part}": part for part in summary.parts},
        **{name: name for name in names if name.startswith("pass@") or name == "majority"},
    }
    ends = {f"ended_by/{reason.value}": reason.value.replace("_", " ") for reason in EndedBy if reason in _SERVED}
    samples = f", {summary.samples} samples a question" if summary.samples > 1 else ""
    return [
        Grid(
            f"{summary.name}: scores, times 100, with 95 % confidence intervals{samples}",
            ["benchmark", "questions", "not served", *scores.values()],
            [
                [name, str(row.questions), str(row.unserved), *(_percent(row, key) for key in scores)]
                for name, row in rows.items()
            ],
        ),
        Grid(
            f"{summary.name}: per question",
            ["benchmark", *_COSTS, "seconds"],
            [[name, *_costs(row), _number(row, "seconds", ".2f")] for name, row in rows.items()],
        ),
        Grid(
            f"{summary.name}: how trajectories ended, in %",
            ["benchmark", *ends.values(), "with a malformed turn"],
            [
                [name, *(_number(row, key, ".1f", scale=100) for key in (*ends, "malformed"))]
                for name, row in rows.items()
            ],
        ),
    ]


def comparison_grids(
    summaries: Sequence[Summary], reference: str, differences: Mapping[str, Difference | None]
) -> list[Grid]:
    """Runs side by side: the core part by benchmark, the others, what it cost, and the distance from the reference."""
    benchmarks, core = benchmark_names(summaries), common_core(summaries)
    others = [part for part in acc_first(part for summary in summaries for part in summary.parts) if part != core]
    core_rows, cost_rows = [], []
    for summary in summaries:
        rows = table_rows(summary)
        core_rows.append([summary.name, *(_percent(rows.get(name), f"{REWARD}{core}") for name in benchmarks)])
        scores = [_percent(summary.average, f"{REWARD}{part}") for part in others]
        cost_rows.append([summary.name, *scores, *_costs(summary.average), str(summary.unserved)])
    return [
        Grid(f"{core}, times 100, with 95 % confidence intervals", ["run", *benchmarks], core_rows),
        Grid("per question, on average over the benchmarks", ["run", *others, *_COSTS, "not served"], cost_rows),
        Grid(
            f"{core} less that of {reference}, times 100, on the same questions",
            ["run", "questions", "difference", "p"],
            [[name, *_difference(found)] for name, found in differences.items()],
        ),
    ]


def common_core(summaries: Sequence[Summary]) -> str:
    """The part of the reward that runs are compared in."""
    return core_part(set.intersection(*[set(summary.parts) for summary in summaries if summary.parts] or [set()]))


def table_rows(summary: Summary) -> dict[str, BenchmarkSummary]:
    """A run's benchmarks, and where there are several, their average."""
    if summary.average is None or len(summary.benchmarks) == 1:
        return summary.benchmarks
    return {**summary.benchmarks, AVERAGE: summary.average}


def benchmark_names(summaries: Sequence[Summary]) -> list[str]:
    """The rows of all runs by name, the average last."""
    names = dict.fromkeys(name for summary in summaries for name in table_rows(summary))
    return sorted(names, key=lambda name: name == AVERAGE)


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["0", UNKNOWN, UNKNOWN]
    p_value = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    return [str(found.questions), _interval(found.difference, "+.1f"), p_value]


def _costs(row: BenchmarkSummary | None) -> list[str]:
    priced = row and "cost" in row.figures and row.figures["cost"].mean > 0
    return [
        _number(row, "calls", ".2f"),
        _number(row, "policy_tokens", ",.0f"),
        _number(row, "operator_tokens", ",.0f"),
        _number(row, "cost", ",.2f", scale=1000) if priced else UNKNOWN,
    ]


def _percent(row: BenchmarkSummary | None, figure: str) -> str:
    return _interval(row.figures[figure], ".1f") if row and figure in row.figures else UNKNOWN


def _number(row: BenchmarkSummary | None, figure: str, form: str, scale: float = 1) -> str:
    return format(scale * row.figures[figure].mean, form) if row and figure in row.figures else UNKNOWN


def _interval(estimate: Estimate, form: str) -> str:
    mean, low, high = (format(100 * value, form) for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"
