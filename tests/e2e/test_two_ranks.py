"""What verl's users switch on, together: two FSDP ranks, tensor parallel 2, LoRA, packed sequences, compilation, and a
bfloat16 rollout whose tokens carry importance weights. Trained, resumed with more steps, merged, evaluated.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Run, small
from safetensors.torch import load_file

from workflow_r1.evaluation.checkpoint import find_checkpoint, merged_checkpoint
from workflow_r1.evaluation.serving import machine_environment
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World

RANK, ALPHA = 8, 32


def settings(steps: int) -> list[str]:
    model, rollout = "actor_rollout_ref.model", "actor_rollout_ref.rollout"
    return [
        *small(steps),
        "trainer.n_gpus_per_node=2",
        f"{rollout}.tensor_model_parallel_size=2",
        f"{rollout}.dtype=bfloat16",
        "algorithm.rollout_correction.rollout_is=token",
        f"{model}.lora_rank={RANK}",
        f"{model}.lora_alpha={ALPHA}",
        f"{model}.use_remove_padding=true",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile=true",
        "trainer.logger=console",
        "trainer.save_freq=1",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
    ]


@pytest.fixture(scope="module")
def trained(run: Run) -> str:
    return run.start(*settings(steps=1)).finish(code=0)


@pytest.fixture(scope="module")
def resumed(run: Run, trained: str) -> str:
    return run.start(*settings(steps=2)).finish(code=0)


@pytest.fixture(scope="module")
def merged(run: Run, resumed: str) -> Path:
    return Path(asyncio.run(merged_checkpoint(str(find_checkpoint(run.folder)), machine_environment())))


def test_a_step_is_taken_and_shown_whatever_trackers_are_named(run: Run, trained: str) -> None:
    assert "step   1/1  acc" in trained
    step = run.metrics[1]
    assert step["actor/grad_norm"] > 0
    assert step["rollout_corr/rollout_is_mean"] == pytest.approx(1, abs=0.05)
    assert 0 < step["training/rollout_probs_diff_mean"] < 0.02


def test_it_is_resumed_with_more_steps(run: Run, resumed: str) -> None:
    assert "Resuming from step 1 of" in resumed
    assert [line[:10] for line in resumed.splitlines() if line.startswith("step ")] == ["step   2/2"]
    assert run.metrics[2]["actor/grad_norm"] > 0
    assert run.processes == []


def test_the_merged_weights_are_the_base_plus_the_adapters_product(run: Run, merged: Path) -> None:
    shards = [
        torch.load(run.folder / f"global_step_2/actor/model_world_size_2_rank_{rank}.pt", weights_only=False)
        for rank in range(2)
    ]
    trained = {name: torch.cat([shard[name].to_local() for shard in shards]) for name in shards[0]}
    base = load_file(ensure_tiny_policy(World.build(1), cache_dir(), seed=1) / "model.safetensors")
    found = load_file(merged / "model.safetensors")
    assert found.keys() == base.keys()
    adapted = 0
    for name, weight in base.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        change = torch.zeros_like(weight)
        if (up := trained.get(f"{layer}.lora_B.default.weight")) is not None:
            change = ALPHA / RANK * (up @ trained[f"{layer}.lora_A.default.weight"])
            assert change.abs().max() > 0
            adapted += 1
        torch.testing.assert_close(found[name], weight + change, rtol=0, atol=1e-7)
        assert found[name].dtype == torch.float32
    assert adapted > 7


def test_it_is_evaluated(run: Run, merged: Path) -> None:
    with running_server(SimulatedEndpoint(SimulatedLLM(World.build(1)))) as server:
        environ = {
            "OPERATOR_BASE_URL": server.base_url,
            "OPERATOR_API_KEY": "none",
            "OPERATOR_MODEL_NAME": MODEL_NAME,
        }
        command = [sys.executable, "-m", "workflow_r1.cli", "eval", "--policy", str(run.folder)]
        command += ["-b", str(run.folder / "data" / "validation.parquet"), "--temperature", "1"]
        command += ["-o", str(run.folder / "eval")]
        done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in (run.folder / "eval" / "results.jsonl").read_text().splitlines()]
    assert len(results) == 32
