"""`workflow-r1 world`."""

from typing import Annotated

import typer

from workflow_r1.system.terminal import fail

world_app = typer.Typer(no_args_is_help=True, help="The embedded world: a simulated operator LLM that knows it.")


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
