"""The `workflow-r1` command."""

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from workflow_r1 import __version__
from workflow_r1.cli.data import prepare, validate
from workflow_r1.cli.evaluation import ask, compare, eval_
from workflow_r1.cli.operators import operators_app
from workflow_r1.cli.training import doctor, train
from workflow_r1.cli.viewer import view
from workflow_r1.cli.world import world_app
from workflow_r1.services.proxies import exempt_this_machine
from workflow_r1.system.environment import EnvironmentFault, prepare_environment
from workflow_r1.system.terminal import fail

app = typer.Typer(no_args_is_help=True)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"workflow-r1 {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train and use policies that build workflows."""
    try:
        if note := prepare_environment():
            typer.echo(f"note: {note}", err=True)
    except EnvironmentFault as error:
        fail(error)
    exempt_this_machine(os.environ)
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character is no reason to fail
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


app.command()(prepare)
app.command()(validate)
app.command("eval")(eval_)
app.command()(compare)
app.command()(ask)
for with_overrides in (train, doctor):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(with_overrides)
app.command()(view)
app.add_typer(operators_app, name="operators")
app.add_typer(world_app, name="world")
