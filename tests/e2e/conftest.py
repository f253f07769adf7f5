"""Runs through real verl, Ray, FSDP, vLLM and HTTP on a CPU. Each start takes minutes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from workflow_r1.launch.report import read_metrics
from workflow_r1.trajectory import Trajectory, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 900

# Tests that run in the background inherit an ignored Ctrl-C, and would pass it on to the runs that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(START_TIMEOUT))


@dataclass(frozen=True)
class Run:
    """An embedded training run in a folder of its own."""

    folder: Path

    def command(self, *overrides: str) -> list[str]:
        settings = [f"trainer.default_local_dir={self.folder}", *overrides]
        return [sys.executable, "-m", "workflow_r1.cli", "train", "--recipe", "workflow_r1_embedded", *settings]

    def start(self, *overrides: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*overrides),
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "160", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *overrides: str, **environ: str) -> str:
        """Run to the end and return what a person would have read."""
        process = self.start(*overrides, **environ)
        output, _ = process.communicate(timeout=START_TIMEOUT)
        assert process.returncode == 0, output + self.log_tail()
        return output

    def log_tail(self) -> str:
        log = self.folder / "train.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""

    @property
    def metrics(self) -> dict[int, dict[str, float]]:
        return read_metrics(self.folder)

    def trajectories(self, partition: str, step: int) -> list[Trajectory]:
        return list(read_jsonl(self.folder / "trajectories" / partition / f"{step}.jsonl"))

    def processes(self) -> list[str]:
        """Command lines of processes that belong to this run and are still there."""
        left = []
        for process in psutil.process_iter(["cmdline"]):
            try:
                if str(self.folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                    left.append(" ".join(process.cmdline()))
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return [line for line in left if "pytest" not in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def small(steps: int) -> list[str]:
    """Overrides that make steps quick."""
    return [
        f"trainer.total_training_steps={steps}",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "world.validation_questions=32",
    ]
