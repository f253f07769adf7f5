"""verl's trainer as a child process: started with its log in a file, stopped with everything it started."""

import ctypes
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from workflow_r1.launch.recipe import CONFIG_DIR

_GRACE_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class TrainerProcess:
    """`python -m verl.trainer.main_ppo`, as verl's users start it.

    Ray and vLLM start processes that outlive a killed parent, some in sessions of their own and under other names. So
    this process becomes the one that inherits its orphaned descendants: whatever the trainer started stays findable.

    Args:
        recipe: the configuration's name in `CONFIG_DIR`.
        overrides: Hydra overrides.
        environ: the environment of the run.
        log: where standard output and error go; appended to.
    """

    def __init__(self, recipe: str, overrides: Sequence[str], environ: Mapping[str, str], log: Path):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._others = set(psutil.Process().children(recursive=True))
        command = [sys.executable, "-m", "verl.trainer.main_ppo"]
        command += ["--config-dir", str(CONFIG_DIR), "--config-name", recipe, *overrides]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**environ, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the launcher, which then stops the trainer in order
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        """End the trainer and every process that it started; returns when none is left."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE_SECONDS)  # the driver shuts Ray down
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _end(self._family(), grace=_GRACE_SECONDS)
        while left := self._family():  # whatever was being started meanwhile
            _end(left, grace=0)

    def _family(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive=True) if child not in self._others]


def _end(processes: list[psutil.Process], grace: float) -> None:
    """Ask processes to end, and kill those that have not after `grace` seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
