"""From verl's checkpoint through its merger and vLLM to the table and the chart, by one command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import psutil
import pytest
from conftest import QUESTIONS, STEPS, Run

from workflow_r1.cache_dir import cache_dir
from workflow_r1.evaluation.baselines import BASELINES
from workflow_r1.world.server import RunningServer, SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World

SEED = 1  # the embedded recipe's


@pytest.fixture(scope="module")
def operators() -> Iterator[RunningServer]:
    with running_server(SimulatedEndpoint(SimulatedLLM(World.build(SEED)))) as server:
        yield server


@pytest.fixture(scope="module")
def comparison(embedded_run: Run, resumed: str, operators: RunningServer) -> Any:
    """What the command wrote after a short training run: the baselines, the cold start and the trained policy."""
    folder = embedded_run.folder
    settings = {
        "benchmarks": [str(folder / "data" / "validation.parquet")],
        "prompt": "none",
        "temperature": 1.0,
        "max_response_tokens": 256,
        "limits": {"max_calls": 8, "max_turns": 8, "max_observation_length": 64},
        "runs": {
            **{name: {"baseline": name} for name in BASELINES},
            "cold start": {"policy": str(ensure_tiny_policy(World.build(SEED), cache_dir(), SEED))},
            "trained": {"policy": str(folder)},
        },
    }
    (folder / "runs.yaml").write_text(json.dumps(settings))  # JSON is YAML
    environ = {
        "OPERATOR_BASE_URL": operators.base_url,
        "OPERATOR_API_KEY": "none",
        "OPERATOR_MODEL_NAME": MODEL_NAME,
        "COLUMNS": "160",
    }
    command = [sys.executable, "-m", "workflow_r1.cli", "compare"]
    command += [str(folder / "runs.yaml"), "-o", str(folder / "comparison")]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in settings["runs"])
    return json.loads((folder / "comparison" / "comparison.json").read_text())


def test_every_run_is_in_the_table_and_the_chart(comparison: Any, embedded_run: Run) -> None:
    table = (embedded_run.folder / "comparison" / "comparison.md").read_text()
    for name in (*BASELINES, "cold start", "trained"):
        assert f"| {name} |" in table
    assert (embedded_run.folder / "comparison" / "comparison.png").stat().st_size > 10_000
    assert comparison["reference"] == "trained"
    assert [found["questions"] for found in comparison["differences"].values()] == [QUESTIONS] * (len(BASELINES) + 1)


def test_the_table_agrees_with_verls_own_validation(comparison: Any, embedded_run: Run) -> None:
    validation = fmean(trajectory.reward["acc"] for trajectory in embedded_run.trajectories("val", STEPS))
    em = figures(comparison, "trained")["em"]
    # Both are samples at temperature 1, so their difference varies more than either: by a factor of at most √2.
    margin = (em["high"] - em["low"]) / 2
    assert em["low"] - margin <= validation <= em["high"] + margin


@pytest.mark.parametrize("name", ["cold start", "trained"])
def test_a_served_policy_writes_the_turns_it_was_taught(name: str, comparison: Any) -> None:
    means = {figure: estimate["mean"] for figure, estimate in figures(comparison, name).items()}
    assert means["ended_by/answered"] > 0.7
    assert means["calls"] > 0.3
    assert means["policy_tokens"] > 0


def test_the_shards_were_merged_and_nothing_is_left_running(comparison: Any, embedded_run: Run) -> None:
    step = embedded_run.folder / f"global_step_{STEPS}"
    assert (step / "merged" / "model.safetensors").is_file()
    assert not (step / "merged.unfinished").exists()
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(step) in _command_line(process)]


def figures(comparison: Any, name: str) -> Any:
    return next(run["average"]["figures"] for run in comparison["runs"] if run["name"] == name)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
