"""verl's trainer as a supervised process: with its log in a file, and ended with everything that it started."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow_r1.runs.recipe import CONFIG_DIR
from workflow_r1.system.folder_lock import FolderLock
from workflow_r1.system.supervision import Supervised


def start_trainer(
    recipe: str, overrides: Sequence[str], environ: Mapping[str, str], log: Path, lock: FolderLock
) -> Supervised:
    """Start `python -m verl.trainer.main_ppo`, as verl's users start it.

    Args:
        recipe: the configuration's name in `CONFIG_DIR`.
        overrides: Hydra overrides.
        environ: the environment of the run.
        log: where standard output and error go; appended to.
        lock: of the run's folder; held until nothing is left of the trainer, whatever becomes of this process.
    """
    command = [sys.executable, "-m", "verl.trainer.main_ppo"]
    command += ["--config-dir", str(CONFIG_DIR), "--config-name", recipe, *overrides]
    return Supervised(command, {**environ, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"}, log, [lock.fileno()])
