"""Running evaluations from their settings to their reports, one or several side by side."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from workflow_r1.data.benchmarks import load_benchmark
from workflow_r1.data.card import DroppedRow, dropped_lines
from workflow_r1.data.cleaning import Dropped
from workflow_r1.data.examples import Example
from workflow_r1.evaluation.chart import draw_bars
from workflow_r1.evaluation.config import Comparison, RunSettings
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.evaluation.first_turns import FirstTurns
from workflow_r1.evaluation.opening import open_system
from workflow_r1.evaluation.record import Record, ResultStore
from workflow_r1.evaluation.report import Grid, common_core, comparison_grids, run_grids
from workflow_r1.evaluation.runner import all_keys, evaluate, missing
from workflow_r1.evaluation.summary import Prices, Scores, Summary, paired_difference, score_questions, summarise
from workflow_r1.reward import Reward, core_part


@dataclass(frozen=True)
class Prepared:
    """A run of which everything was checked that can be without asking an endpoint."""

    name: str
    settings: RunSettings
    folder: Path
    examples: list[Example]
    identity: dict[str, Any]
    prices: Prices
    dropped: list[Dropped]
    reward: Reward


def prepare_run(name: str, settings: RunSettings, folder: Path) -> Prepared:
    """Load a run's questions and check its settings.

    Raises:
        EvaluationError: a checkpoint is missing, or two benchmarks hold the same question.
        DataError, OperatorConfigError, PromptError, RewardError: what they are about cannot be used.
    """
    operators = settings.operator_pool()
    identity = settings.identity()
    examples: dict[tuple[str, str], Example] = {}
    dropped: list[Dropped] = []
    for benchmark in settings.benchmarks:
        for example in load_benchmark(benchmark, limit=settings.limit, seed=settings.data_seed, dropped=dropped):
            key = example.data_source, example.id
            if key in examples:
                raise EvaluationError(
                    f"Two benchmarks hold question {example.id!r} of {example.data_source!r}: name each benchmark once."
                )
            examples[key] = example
    prices, reward = settings.prices(operators), Reward(settings.reward, "--reward")
    return Prepared(name, settings, folder, list(examples.values()), identity, prices, dropped, reward)


async def execute(run: Prepared, console: Console) -> tuple[Summary, Scores]:
    """Ask what has no result yet, and write `summary.json`, `summary.md` and `summary.png` beside the results.

    Raises:
        EvaluationError: the run cannot start or go on.
        OperatorEndpointError: the operators' endpoint cannot be reached.
    """
    settings = run.settings
    for line in dropped_lines(map(DroppedRow.of, run.dropped)):
        console.print(line, style="dim", markup=False)
    with closing(ResultStore(run.folder, run.identity)) as store:
        if work := missing(run.examples, settings.samples, store):
            async with open_system(settings, run.folder, console.print) as system:
                with _progress(run, store, console) as on_result:
                    await evaluate(
                        work,
                        system,
                        store,
                        run.reward,
                        seed=settings.seed,
                        concurrency=settings.concurrency,
                        on_result=on_result,
                    )
        scores = score_questions(run.examples, store.records, settings.samples, run.prices)
    summary = summarise(run.name, scores)
    _write(run.folder / "summary", summary.model_dump(mode="json"), run_grids(summary), [summary])
    return summary, scores


@contextmanager
def _progress(run: Prepared, store: ResultStore, console: Console) -> Iterator[Callable[[Record], None]]:
    """A bar over all samples of the run, with the mean of the reward's core part and the failures so far."""
    keys = list(all_keys(run.examples, run.settings.samples))
    done = [store.records[key] for key in keys if store.is_done(key)]
    scores = [_core(record) for record in done]
    failed = 0
    first_turns = FirstTurns(len(keys) - len(done))
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(run.name, total=len(keys), completed=len(done), state="")

        def on_result(record: Record) -> None:
            nonlocal failed
            if record.error is None:
                scores.append(_core(record))
            else:
                failed += 1
            if warning := first_turns.warning(record):
                console.print(warning, style="yellow")
            state = f"{scores[-1][0]} {fmean(score for _, score in scores):.3f}" if scores else ""
            progress.update(task, advance=1, state=state + (f", {failed} not served" if failed else ""))

        yield on_result


def _core(record: Record) -> tuple[str, float]:
    """The name and the value of what says how good an answer is."""
    assert record.trajectory is not None, "a served record has a trajectory"
    rewards = record.trajectory.reward
    return (part := core_part(rewards)), rewards[part]


async def execute_all(comparison: Comparison, folder: Path, console: Console) -> tuple[list[Grid], int]:
    """Execute every run in a folder of its own and write `comparison.json`, `.md` and `.png`.

    Returns:
        The tables, and how many questions of all runs an endpoint failed to serve.

    Raises:
        As `prepare_run` and `execute`.
    """
    # All are prepared before the first starts, so that a wrong path does not show hours in.
    prepared = [prepare_run(name, settings, folder / name) for name, settings in comparison.runs.items()]
    outcomes = {run.name: await execute(run, console) for run in prepared}
    summaries = [summary for summary, _ in outcomes.values()]
    core = common_core(summaries)
    reference = outcomes[comparison.reference][1]
    differences = {
        name: paired_difference(scores, reference, core)
        for name, (_, scores) in outcomes.items()
        if name != comparison.reference
    }
    grids = comparison_grids(summaries, comparison.reference, differences)
    content = {
        "reference": comparison.reference,
        "runs": [summary.model_dump(mode="json") for summary in summaries],
        "differences": {name: found and found.model_dump(mode="json") for name, found in differences.items()},
    }
    _write(folder / "comparison", content, grids, summaries)
    return grids, sum(summary.unserved for summary in summaries)


def _write(path: Path, content: Any, grids: Sequence[Grid], summaries: Sequence[Summary]) -> None:
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text("\n".join(grid.to_markdown() for grid in grids), encoding="utf-8")
    draw_bars(summaries, path.with_suffix(".png"))
