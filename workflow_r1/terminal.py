"""How every command says what a user got wrong."""

from typing import NoReturn

import typer


def fail(message: object) -> NoReturn:
    """End the command with one sentence on standard error, and exit code 1."""
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1)
