"""An evaluation killed at random moments ends with the results of an uninterrupted one."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.waiting import wait_until

from workflow_r1.evaluation.config import RunSettings
from workflow_r1.evaluation.execution import execute, prepare_run
from workflow_r1.evaluation.record import Record
from workflow_r1.evaluation.summary import Summary
from workflow_r1.world.server import RunningServer
from workflow_r1.world.world import World

QUESTIONS, KILLS = 500, 3
EVAL = "import typer; from workflow_r1.cli.evaluation import eval_; typer.run(eval_)"


def start(policy: RunningServer, questions: Path, folder: Path) -> "subprocess.Popen[bytes]":
    arguments = ["--policy", policy.base_url, "--prompt", "none", "-b", questions, "-o", folder, "--concurrency", "16"]
    command = [sys.executable, "-c", EVAL, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def lines(folder: Path) -> int:
    path = folder / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def results(folder: Path) -> dict[Any, Any]:
    """Every record by its key, without what a clock measured."""
    content = [Record.model_validate_json(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len({record.key for record in content}) == len(content), "a question was answered twice"
    return {record.key: _timeless(record.model_dump()) for record in content}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not key.endswith("seconds")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_it_had_never_stopped(
    operators: RunningServer, policy: RunningServer, world: World, tmp_path: Path
) -> None:
    questions = world.write_parquet(tmp_path / "data", train=2, validation=QUESTIONS)[1]
    settings = RunSettings(policy=policy.base_url, prompt="none", benchmarks=(str(questions),))
    asyncio.run(execute(prepare_run("whole", settings, tmp_path / "whole"), Console(quiet=True)))
    policy.endpoint.asked.clear()

    moments = sorted(random.sample(range(QUESTIONS), KILLS))
    for moment in moments:
        process = start(policy, questions, tmp_path / "killed")
        wait_until(lambda: lines(tmp_path / "killed") >= moment or process.poll() is not None, pause=0.002)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = lines(tmp_path / "killed")
    assert start(policy, questions, tmp_path / "killed").wait() == 0

    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")
    # What had a result was not asked again: only what was under way at a kill, at most 16 questions of 5 turns each.
    again = sum(count - 1 for count in policy.endpoint.asked.values())
    assert again <= KILLS * 16 * 5
    assert done >= moments[-1], f"killed at {moments}"


def summary(folder: Path) -> Any:
    figures = Summary.model_validate_json((folder / "summary.json").read_text()).model_dump()
    for row in [*figures["benchmarks"].values(), figures["average"]]:
        del row["figures"]["seconds"]
    return {**figures, "name": ""}
