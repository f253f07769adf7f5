"""`workflow-r1 train` and `workflow-r1 doctor`."""

import errno
import sys
from typing import Annotated

import typer

from workflow_r1.errors import UserError
from workflow_r1.system.terminal import TextConsole, fail

RecipeOption = Annotated[
    str | None, typer.Option(help="A configuration in verl/trainer/config; by default what fits the machine.")
]


def train(
    context: typer.Context,
    recipe: RecipeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run and start nothing.")] = False,
) -> None:
    """Train a policy. Arguments are Hydra overrides, such as trainer.total_training_steps=100."""
    if dry_run:
        doctor(context, recipe)
    from workflow_r1.runs.train import train as run

    try:
        sys.exit(run(context.args, recipe))
    except UserError as error:
        fail(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail("The disk is full: free space where trainer.default_local_dir and XDG_CACHE_HOME are.")
    except KeyboardInterrupt:
        sys.exit(130)


def doctor(
    context: typer.Context,
    recipe: RecipeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check everything that `train` with these arguments needs, and start nothing; exit code 1 where it would fail."""
    from workflow_r1.runs.doctor import examine, show, to_json

    try:
        found = examine(context.args, recipe)
    except UserError as error:
        fail(error)
    if as_json:
        print(to_json(found))
    else:
        show(TextConsole(soft_wrap=True), found)
    sys.exit(0 if found.ok else 1)
