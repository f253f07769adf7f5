"""Runs through real verl, Ray, FSDP, vLLM and HTTP on a CPU. Each start takes minutes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.processes import still_there
from support.recording_proxy import RecordingProxy, recording_proxy
from support.waiting import wait_until

from workflow_r1.runs.progress import read_metrics
from workflow_r1.runs.recipe import EMBEDDED
from workflow_r1.trajectory import Trajectory, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900  # seconds for a test with the runs that its fixtures start


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(TIMEOUT))


class Command:
    """A command that is running, and the processes that it has started: looked for at every line that it prints."""

    def __init__(self, command: Sequence[str], **options: Any):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **options,
        )
        self._family: set[psutil.Process] = {psutil.Process(self._process.pid)}

    def lines(self) -> Iterator[str]:
        """What a person reads, as it comes; going on where the last look ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.look()
            yield line

    def look(self) -> None:
        """Look for processes that it has started."""
        for process in tuple(self._family):
            with suppress(psutil.NoSuchProcess):
                self._family.update(process.children(recursive=True))

    def finish(self, code: int) -> str:
        """The rest of what a person reads; it ends with exit code `code`."""
        output = "".join(self.lines())
        assert self._process.wait() == code, output
        return output

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def processes(self) -> list[psutil.Process]:
        """Those of its family that are still there."""
        return still_there(self._family)

    def kill(self) -> None:
        """End it and its family, whatever state a failed test has left them in."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@dataclass(frozen=True)
class Run:
    """A training run in a folder of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    def start(self, *overrides: str, recipe: str = EMBEDDED, **environ: str) -> Command:
        command = [sys.executable, "-m", "workflow_r1.cli", "train", "--recipe", recipe]
        settings = [f"trainer.default_local_dir={self.folder}", *overrides]
        environ = {**os.environ, "COLUMNS": "160", **self.environ, **environ}
        self.commands.append(Command([*command, *settings], cwd=ROOT, env=environ))
        return self.commands[-1]

    @property
    def processes(self) -> list[psutil.Process]:
        """Whatever of its commands is still there."""
        return [process for command in self.commands for process in command.processes]

    @property
    def metrics(self) -> dict[int, dict[str, float]]:
        return read_metrics(self.folder)

    def trajectories(self, partition: str, step: int) -> list[Trajectory]:
        return list(read_jsonl(self.folder / "trajectories" / partition / f"{step}.jsonl"))


def _run(folder: Path, **environ: str) -> Iterator[Run]:
    run = Run(folder, environ)
    yield run
    for command in run.commands:
        command.kill()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield from _run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def proxy() -> Iterator[RecordingProxy]:
    """What the proxy variables of `embedded_run` name. All its servers are on this machine, so nothing asks it."""
    with recording_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def embedded_run(tmp_path_factory: pytest.TempPathFactory, proxy: RecordingProxy) -> Iterator[Run]:
    """`train.sh` without a GPU, in small: interrupted, killed, then resumed; in a folder with a difficult name."""
    names = {"HTTP_PROXY": proxy.url, "ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "[::1"}
    yield from _run(tmp_path_factory.mktemp("run [1], a=b (数据) 'c' #$d {e}"), **names)


@pytest.fixture(scope="session")
def interrupted(embedded_run: Run) -> str:
    """What the terminal showed of it until Ctrl-C after its first step, and again while it was stopping.

    Meanwhile the same command was given a second time; what that showed is part of it.
    """
    command, shown = embedded_run.start(*SETTINGS), []
    for line in command.lines():
        shown.append(line)
        if line.startswith("validation at step 0"):
            shown.append(embedded_run.start(*SETTINGS).finish(code=1))
        if line.startswith(("step   1/", "Interrupted")):
            assert len(command.processes) > 8  # the launcher, the trainer, Ray's own, its workers, vLLM's
            command.send(signal.SIGINT)
    return "".join(shown) + command.finish(code=130)


@pytest.fixture(scope="session")
def saved(embedded_run: Run, interrupted: str) -> int:
    """The step of the checkpoint that it left."""
    return int((embedded_run.folder / "latest_checkpointed_iteration.txt").read_text())


@pytest.fixture(scope="session")
def killed(embedded_run: Run, saved: int) -> list[psutil.Process]:
    """The processes of the same command, started again and killed while it was starting vLLM."""
    command = embedded_run.start(*SETTINGS)

    def is_up() -> bool:
        command.look()
        assert command.processes
        return len(command.processes) >= 10

    wait_until(is_up, pause=0.2, within=600)
    processes = command.processes
    command.send(signal.SIGKILL)
    return processes


@pytest.fixture(scope="session")
def resumed(embedded_run: Run, killed: list[psutil.Process]) -> str:
    """What the same command showed when it was given again at once."""
    return embedded_run.start(*SETTINGS).finish(code=0)


def small(steps: int) -> list[str]:
    """Overrides that make steps quick."""
    return [
        f"trainer.total_training_steps={steps}",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "world.validation_questions=32",
    ]


STEPS, QUESTIONS = 3, 128
SETTINGS = [
    *small(STEPS),
    f"world.validation_questions={QUESTIONS}",
    "trainer.save_freq=1",
    f"trainer.test_freq={STEPS}",
]
"""Of `embedded_run`; questions enough for its validation to be compared with an evaluation."""
