"""From verl's sharded checkpoint through its merger and vLLM to the table and the chart, by one command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from workflow_r1.evaluation.baselines import BASELINES
from workflow_r1.launch.embedded import cache_dir
from workflow_r1.world.server import RunningServer, SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World

QUESTIONS = 64


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(seed=1)


@pytest.fixture(scope="module")
def operators(world: World) -> Iterator[RunningServer]:
    with running_server(SimulatedEndpoint(SimulatedLLM(world))) as server:
        yield server


@pytest.fixture(scope="module")
def training_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as verl's trainer leaves it, with the cold-started policy as its one step, on one rank."""
    policy, folder = ensure_tiny_policy(world, cache_dir()), tmp_path_factory.mktemp("run")
    actor = folder / "global_step_4" / "actor"
    shutil.copytree(policy, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    torch.save(model.state_dict(), actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    (folder / "latest_checkpointed_iteration.txt").write_text("4")
    return folder


@pytest.fixture(scope="module")
def comparison(world: World, operators: RunningServer, training_run: Path) -> tuple[Path, str]:
    """The results' folder and what the terminal showed."""
    questions = world.write_parquet(training_run / "data", train=2, validation=QUESTIONS)[1]
    settings = {
        "benchmarks": [str(questions)],
        "prompt": "none",
        "max_response_tokens": 448,
        "limits": {"max_calls": 8, "max_turns": 8, "max_observation_length": 256},
        "runs": {
            **{name: {"baseline": name} for name in BASELINES},
            "cold start": {"policy": str(training_run), "temperature": 1.0},
        },
    }
    (training_run / "runs.yaml").write_text(json.dumps(settings))  # JSON is YAML
    environ = {
        "OPERATOR_BASE_URL": operators.base_url,
        "OPERATOR_API_KEY": "none",
        "OPERATOR_MODEL_NAME": MODEL_NAME,
        "COLUMNS": "160",
    }
    command = [sys.executable, "-m", "workflow_r1.cli", "compare"]
    command += [str(training_run / "runs.yaml"), "-o", str(training_run / "comparison")]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return training_run / "comparison", done.stdout


def test_every_run_is_in_the_table_and_the_chart(comparison: tuple[Path, str]) -> None:
    folder, shown = comparison
    table = (folder / "comparison.md").read_text()
    for name in (*BASELINES, "cold start"):
        assert f"| {name} |" in table
        assert name in shown
    assert (folder / "comparison.png").stat().st_size > 10_000


def test_the_served_policy_writes_the_turns_it_was_taught(comparison: tuple[Path, str]) -> None:
    (row,) = [run for run in read(comparison)["runs"] if run["name"] == "cold start"]
    figures = {name: estimate["mean"] for name, estimate in row["average"]["figures"].items()}
    assert row["average"]["questions"] == QUESTIONS
    assert figures["ended_by/answered"] > 0.7
    assert figures["calls"] > 0.5
    assert figures["policy_tokens"] > 0
    differences = read(comparison)["differences"]
    assert differences.keys() == set(BASELINES)
    assert all(found["questions"] == QUESTIONS for found in differences.values())


def test_the_shards_were_merged_and_nothing_is_left_running(comparison: tuple[Path, str], training_run: Path) -> None:
    merged = training_run / "global_step_4" / "merged"
    assert (merged / "model.safetensors").is_file()
    assert not (training_run / "global_step_4" / "merged.unfinished").exists()
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(merged) in _command_line(process)]


def read(comparison: tuple[Path, str]) -> Any:
    return json.loads((comparison[0] / "comparison.json").read_text())


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
