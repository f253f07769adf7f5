"""`workflow-r1 view`."""

from pathlib import Path
from typing import Annotated

import typer

from workflow_r1.errors import UserError
from workflow_r1.system.endings import end_in_order
from workflow_r1.system.terminal import TextConsole, echo, fail


def view(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Runs, evaluations, comparisons, or folders that hold several; running or finished."),
    ],
    text: Annotated[bool, typer.Option("--text", help="Print to the terminal instead.")] = False,
    browser: Annotated[bool, typer.Option(help="Open the pages in the browser.")] = True,
    export: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML file instead.", show_default=False)
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="With --text: train, val or eval. Default: what there is, train first.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="With --text: of which step. Default: the last.")] = None,
    question: Annotated[
        str | None, typer.Option(help="With --text: the rollouts of each question that holds this text.")
    ] = None,
    line: Annotated[
        int | None, typer.Option(help="With --text: the trajectory in this line of the step's file.")
    ] = None,
) -> None:
    """Look inside trajectories, in the browser: every one as the workflow that it is."""
    from workflow_r1.viewer.export import export as write_report
    from workflow_r1.viewer.serving import serve
    from workflow_r1.viewer.sources import roots_of
    from workflow_r1.viewer.text import Wanted, print_view

    end_in_order()
    try:
        roots = roots_of(paths)
        if text:
            print_view(TextConsole(), roots, Wanted(part, step, question, line))
        elif export is not None:
            write_report(roots, export)
            echo(f"report  {export}")
        else:
            serve(roots, lambda address: echo(f"{address} (Ctrl-C ends it)"), browser)
    except UserError as error:
        fail(error)
