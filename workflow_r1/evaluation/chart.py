"""The bar chart of runs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from workflow_r1.evaluation.report import benchmark_names, common_core, table_rows
from workflow_r1.evaluation.summary import REWARD, Summary

_COLOURS = ("#4878a8", "#d08a3e", "#5a9a68", "#b5545c", "#8271a8", "#8a7262", "#c483b0", "#767676")


def draw_bars(summaries: Sequence[Summary], path: Path) -> None:
    """The core part of the reward by benchmark, a bar a run, with 95 % confidence intervals, as a picture."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    benchmarks, core = benchmark_names(summaries), common_core(summaries)
    width = 0.8 / len(summaries)
    inches = max(5.0, 1.2 + len(benchmarks) * (0.5 + 0.28 * len(summaries)))
    figure, axes = pyplot.subplots(figsize=(inches, 4.2), layout="constrained")
    for number, summary in enumerate(summaries):
        rows = table_rows(summary)
        estimates = [rows[name].figures.get(f"{REWARD}{core}") if name in rows else None for name in benchmarks]
        shown = [(place, estimate) for place, estimate in enumerate(estimates) if estimate is not None]
        offset = (number - (len(summaries) - 1) / 2) * width
        axes.bar(
            [place + offset for place, _ in shown],
            [100 * estimate.mean for _, estimate in shown],
            width * 0.92,
            yerr=[
                [100 * (estimate.mean - estimate.low) for _, estimate in shown],
                [100 * (estimate.high - estimate.mean) for _, estimate in shown],
            ],
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": "0.25"},
            color=_COLOURS[number % len(_COLOURS)],
            label=summary.name,
        )
    axes.set_xticks(range(len(benchmarks)), benchmarks)
    axes.set_ylabel(f"{core}, times 100")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=min(4, len(summaries)), frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
