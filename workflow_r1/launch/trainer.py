"""verl's trainer as a child process: started with its log in a file, stopped with everything it started."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from workflow_r1.launch.recipe import CONFIG_DIR

_RUN_ID = "WORKFLOW_R1_RUN_ID"
_GRACE_SECONDS = 20.0


class TrainerProcess:
    """`python -m verl.trainer.main_ppo`, as verl's users start it.

    Ray and vLLM start processes that outlive a killed parent, some in sessions of their own; all of them inherit an
    id in their environment, and that is how `stop` finds them.

    Args:
        recipe: the configuration's name in `CONFIG_DIR`.
        overrides: Hydra overrides.
        environ: the environment of the run.
        log: where standard output and error go; appended to.
    """

    def __init__(self, recipe: str, overrides: Sequence[str], environ: Mapping[str, str], log: Path):
        self._id = uuid.uuid4().hex
        command = [sys.executable, "-m", "verl.trainer.main_ppo"]
        command += ["--config-dir", str(CONFIG_DIR), "--config-name", recipe, *overrides]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**environ, _RUN_ID: self._id, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"},
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
        if self.running:
            self._process.terminate()
        _end(list(self._family()), _GRACE_SECONDS)
        while left := list(self._family()):  # whatever was being started meanwhile
            _end(left, 0)
        self._process.wait()

    def _family(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(_RUN_ID) == self._id:
                    yield process
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue


def _end(processes: list[psutil.Process], grace: float) -> None:
    for process in processes:
        _signal(process, kill=grace == 0)
    _, alive = psutil.wait_procs(processes, timeout=grace or 5)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=5)


def _signal(process: psutil.Process, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()
