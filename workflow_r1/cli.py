"""The `workflow-r1` command."""

import errno
import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from workflow_r1 import __version__, linux  # noqa: F401 - before modules that Windows lacks
from workflow_r1.data.commands import prepare, validate
from workflow_r1.environment import EnvironmentFault, prepare_environment
from workflow_r1.evaluation.commands import ask, compare, eval_
from workflow_r1.operators.commands import operators_app
from workflow_r1.proxies import exempt_this_machine
from workflow_r1.terminal import fail

app = typer.Typer(no_args_is_help=True)
world_app = typer.Typer(no_args_is_help=True, help="The embedded world: a simulated operator LLM that knows it.")


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
app.add_typer(operators_app, name="operators")
app.add_typer(world_app, name="world")

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_PASS_THROUGH)
def train(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Option(help="A configuration in verl/trainer/config; by default what fits the machine.")
    ] = None,
) -> None:
    """Train a policy. Arguments are Hydra overrides, such as trainer.total_training_steps=100."""
    from workflow_r1.launch.recipe import LaunchError
    from workflow_r1.launch.train import train as run

    try:
        sys.exit(run(context.args, recipe))
    except LaunchError as error:
        fail(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail("The disk is full: free space where trainer.default_local_dir and XDG_CACHE_HOME are.")
    except KeyboardInterrupt:
        sys.exit(130)


@world_app.command()
def serve(
    seed: Annotated[int, typer.Option(help="Which world.")] = 1,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPERATOR_API_KEY", help="Ask for this key; none asks for no key.")
    ] = None,
    latency: Annotated[float, typer.Option(help="Seconds that each reply takes.")] = 0.0,
) -> None:
    """Serve the simulated operator LLM behind the OpenAI chat-completions API until Ctrl-C."""
    from workflow_r1.world.server import SimulatedEndpoint
    from workflow_r1.world.server import serve as run
    from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
    from workflow_r1.world.world import World

    endpoint = SimulatedEndpoint(SimulatedLLM(World.build(seed)), api_key=api_key, latency=latency)
    try:
        run(endpoint, host=host, port=port, announce=lambda url: typer.echo(f"{MODEL_NAME} (a simulation) at {url}"))
    except OSError as error:
        fail(error.strerror or error)


if __name__ == "__main__":
    app()
