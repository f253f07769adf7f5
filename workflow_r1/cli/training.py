"""`workflow-r1 train`."""

import errno
import sys
from typing import Annotated

import typer

from workflow_r1.errors import UserError
from workflow_r1.system.terminal import fail


def train(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Option(help="A configuration in verl/trainer/config; by default what fits the machine.")
    ] = None,
) -> None:
    """Train a policy. Arguments are Hydra overrides, such as trainer.total_training_steps=100."""
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
