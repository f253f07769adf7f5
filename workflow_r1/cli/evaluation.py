"""`workflow-r1 eval`, `workflow-r1 compare` and `workflow-r1 ask`."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from workflow_r1.cli.options import takes_settings
from workflow_r1.errors import UserError
from workflow_r1.evaluation.config import PolicySettings, RunSettings, parse_settings
from workflow_r1.system.endings import end_in_order
from workflow_r1.system.terminal import TextConsole, echo, fail

T = TypeVar("T")


@takes_settings(RunSettings)
def eval_(
    values: dict[str, Any],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder of the results. Default: outputs/eval/NAME.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What tables and charts call it. Default: the baseline or the policy.", show_default=False),
    ] = None,
) -> None:
    """Evaluate a policy or a baseline on benchmarks.

    The operators' model is the one of OPERATOR_BASE_URL, OPERATOR_API_KEY and OPERATOR_MODEL_NAME. Results are kept
    as they come: the same command goes on where it was stopped, and asks again only what an endpoint failed to serve.
    """
    from workflow_r1.evaluation.execution import execute, prepare_run
    from workflow_r1.evaluation.report import run_grids

    def run() -> int:
        settings = parse_settings(RunSettings, values, "eval")
        policy = "policy" if settings.is_endpoint and not settings.model else settings.model or settings.policy or ""
        title = name or settings.baseline or Path(policy).name
        folder = output or Path("outputs/eval") / title
        console = TextConsole()
        summary, _ = asyncio.run(execute(prepare_run(title, settings, folder), console))
        for grid in run_grids(summary):
            console.print(grid.to_rich())
        console.print(f"Results, tables and chart: {folder}")
        return summary.unserved

    _report_unserved(_guarded(run))


def compare(
    runs: Annotated[
        Path,
        typer.Argument(
            help="A YAML file: under 'runs', by name, each a policy or a baseline and its settings; at the top level "
            "what all of them share, such as the benchmarks; 'reference', the run that the others are tested against."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the results, one folder a run.")] = Path(
        "outputs/comparison"
    ),
) -> None:
    """Evaluate several policies and baselines and put them side by side, in tables and a chart.

    Goes on where it was stopped, run by run; a run added to the file costs only itself.
    """
    from workflow_r1.evaluation.config import Comparison
    from workflow_r1.evaluation.execution import execute_all

    def run() -> int:
        console = TextConsole()
        grids, unserved = asyncio.run(execute_all(Comparison.read(runs), output, console))
        for grid in grids:
            console.print(grid.to_rich())
        console.print(f"Tables and chart: {output / 'comparison'}.md, .json and .png")
        return unserved

    _report_unserved(_guarded(run))


@takes_settings(PolicySettings)
def ask(
    values: dict[str, Any],
    question: Annotated[str, typer.Argument(help="The question.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")] = False,
    graph: Annotated[
        Path | None,
        typer.Option(help="Draw the workflow into this file: .png, .svg or .pdf.", show_default=False),
    ] = None,
) -> None:
    """Ask a policy one question and watch it work: its turns, what the operators reply, the answer, and the cost.

    The exit code is 1 where the policy gave no answer.
    """
    from workflow_r1.evaluation.ask import ask as ask_policy
    from workflow_r1.evaluation.ask import to_json
    from workflow_r1.evaluation.errors import EvaluationError
    from workflow_r1.evaluation.opening import open_policy
    from workflow_r1.records import well_formed
    from workflow_r1.runs.drawing import draw_workflow

    def run() -> bool:
        settings = parse_settings(PolicySettings, values, "ask")
        if settings.policy is None:
            raise EvaluationError("Name the policy with --policy: an endpoint's URL, a checkpoint, or a model id.")
        asked = well_formed(question)  # an argument may hold bytes that are no text
        progress = TextConsole(stderr=True)

        async def work() -> bool:
            async with open_policy(settings, Path("outputs/ask"), progress.print) as opened:
                console = TextConsole(quiet=json)
                prices = settings.prices(opened.operators)
                attempt = await ask_policy(asked, opened, prices, settings.seed, console)
            if json:
                echo(to_json(attempt, prices))
            if graph is not None:
                draw_workflow(attempt.trajectory, graph)
            return attempt.trajectory.answer is not None

        return asyncio.run(work())

    if not _guarded(run):
        raise typer.Exit(1)


def _guarded(run: "Callable[[], T]") -> T:
    """Run a command's work; what a user can have caused is one sentence on standard error and exit code 1."""
    end_in_order()  # so that a server that was started for the policy is stopped too
    try:
        return run()
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        typer.secho("Stopped. An evaluation keeps its results: the same command goes on from here.", err=True)
        raise typer.Exit(130) from None


def _report_unserved(unserved: int) -> None:
    if unserved:
        typer.secho(
            f"{unserved} question(s) could not be served by an endpoint and are in no figure: the same command asks "
            "them again.",
            err=True,
            fg=typer.colors.RED,
        )
        raise typer.Exit(1)
