"""`workflow-r1 doctor` and `train --dry-run`: everything that is wrong is heard of at once, and nothing is started."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.runs import opening
from workflow_r1.runs.doctor import Examination, examine
from workflow_r1.runs.preflight import machine, resources, subjects
from workflow_r1.runs.preflight.operators import check_operators_rate
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, compose_recipe
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without verl's import and the Hub's retries; what they would say has tests of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subjects, "check_plugin", lambda *_: None)
    monkeypatch.setattr(subjects, "check_model", lambda *_, **__: None)
    for name in ("BASE_URL", "API_KEY", "MODEL_NAME"):
        monkeypatch.delenv(f"OPERATOR_{name}", raising=False)


def faults(found: Examination) -> dict[str, str]:
    return {finding.subject: finding.text for finding in found.findings if not finding.ok}


def test_the_embedded_run_would_start_and_what_it_makes_is_said(tmp_path):
    found = examine([], EMBEDDED)
    assert faults(found) == {}
    texts = {finding.subject: finding.text for finding in found.findings}
    assert texts["data"] == texts["model"] == texts["operators"] == "made when the run starts"
    assert texts["plug-in"] == "nothing is wrong"
    assert texts["CPU cores"] == "verl's actors reserve 6, Ray counts 16"
    assert list(tmp_path.iterdir()) == []


def test_everything_that_is_wrong_is_heard_of_at_once(monkeypatch):
    monkeypatch.setattr(resources, "_cores", lambda: 4)
    found = examine(["hardware=8x80", "model=qwen2.5-32b", "actor_rollout_ref.rollout.n=0"], REFERENCE)
    assert faults(found).keys() == {"software", "settings", "CPU cores", "memory", "disk", "data", "operators"}
    assert not any("\n" in text for text in faults(found).values())
    assert found.settings["actor_rollout_ref.rollout.tensor_model_parallel_size"] == 1
    assert found.settings["hardware"] == "8x80"


def test_an_override_that_cannot_be_read_is_the_one_fault():
    assert faults(examine(["trainer.nodes=2"], REFERENCE))["settings"].startswith("Unknown setting 'trainer.nodes'")


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended nvidia-smi with six GPUs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(
        '#!/bin/sh\nfor n in 0 1 2 3 4 5; do case $1 in -L) echo "GPU $n: Pretended (UUID: GPU-$n)";;\n'
        '*) echo "$n, GPU-$n, Pretended, 81559, 4, 535.1";; esac; done\n'
    )
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_gpu_that_torch_cannot_use_is_a_fault(smi, monkeypatch):
    assert "torch here is a build for the CPU" in faults(examine([], None))["GPUs"]
    monkeypatch.setattr(machine.torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine, "_why_no_gpu", lambda: "the driver is too old")
    found = examine(["trainer.n_gpus_per_node=4"], None)
    assert found.recipe == REFERENCE
    assert "update the driver to one for CUDA 13.0" in faults(found)["software"]


def test_six_gpus_are_refused(smi):
    text = faults(examine([], REFERENCE))["settings"]
    assert text.startswith("No hardware choice of the recipes")
    assert "CUDA_VISIBLE_DEVICES=0,1,2,3 for hardware=4x48" in text


def test_without_flash_attention_torchs_own_is_taken_and_its_cost_said(monkeypatch):
    find = opening.importlib.util.find_spec
    monkeypatch.setattr(opening.importlib.util, "find_spec", lambda name: None if name == "flash_attn" else find(name))
    taken = opening.open_recipe(["hardware=2x80"], REFERENCE)
    assert taken.config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"
    assert "flash-attn is not installed" in taken.notes[0]
    named = opening.open_recipe([f"++{opening._ATTENTION}=eager"], REFERENCE)
    assert (named.config.actor_rollout_ref.model.override_config.attn_implementation, named.notes) == ("eager", [])


def test_the_operators_are_measured_against_what_a_step_asks(monkeypatch):
    llm = SimulatedLLM(World.build(1))
    with running_server(SimulatedEndpoint(llm, api_key="k")) as server:
        for name, value in {"BASE_URL": server.base_url, "API_KEY": "k", "MODEL_NAME": MODEL_NAME}.items():
            monkeypatch.setenv(f"OPERATOR_{name}", value)
        config = compose_recipe(REFERENCE, ["+workflow_r1.operators.prompt_price=0.1", "data.train_files=hdfs://a"])
        assert "a step makes at most 81,920 calls, " in check_operators_rate(config)
        config.trainer.total_training_steps = 38
        assert check_operators_rate(config).endswith(" h, US$ 311 with 1,000 and 300 tokens a call")


def test_the_command_prints_json_and_its_exit_code_says_whether_a_run_would_start():
    good = CliRunner().invoke(app, ["doctor", "--recipe", EMBEDDED, "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["ok"] is True
    bad = CliRunner().invoke(app, ["doctor", "--recipe", REFERENCE, "--json", "hardware=2x80"])
    assert bad.exit_code == 1
    read = json.loads(bad.stdout)
    assert read["settings"]["actor_rollout_ref.model.path"] == "Qwen/Qwen2.5-7B-Instruct"
    assert [phase["name"] for phase in read["memory_gib"]["phases"]] == [
        *("start", "rollout", "log-probs", "update", "weight sync")
    ]


def test_a_dry_run_prints_settings_estimate_and_findings_and_starts_nothing(tmp_path):
    command = ["train", "--dry-run", "--recipe", REFERENCE, "hardware=2x141", "objective=grpo"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 1
    assert "objective: grpo" in said.stdout
    assert "weight sync" in said.stdout
    assert "FAULT data: data.train_files: data/workflow_r1/train.parquet does not exist." in said.stdout
    assert list(tmp_path.iterdir()) == []
