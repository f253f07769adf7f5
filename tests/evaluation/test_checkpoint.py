"""What a user may name as a checkpoint, and how verl's shards become a model."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest
from support.waiting import until

from workflow_r1.evaluation.checkpoint import find_checkpoint, merged_checkpoint
from workflow_r1.evaluation.config import PolicySettings, parse_settings
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.operators import PoolSettings
from workflow_r1.rollout import RolloutLimits


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


async def test_a_hugging_face_folder_is_itself(tmp_path: Path) -> None:
    touch(tmp_path / "config.json", tmp_path / "model.safetensors")
    assert find_checkpoint(tmp_path) == tmp_path
    assert await merged_checkpoint(str(tmp_path), {}) == str(tmp_path)


@pytest.mark.parametrize("named", [".", "global_step_20", "global_step_20/actor"])
def test_a_run_a_step_and_its_shards_mean_the_same(named: str, tmp_path: Path) -> None:
    actor = tmp_path / "global_step_20" / "actor"
    touch(actor / "fsdp_config.json", actor / "huggingface" / "config.json", tmp_path / "global_step_10" / "x")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    assert find_checkpoint(tmp_path / named) == actor


CONFIG = """
data: {max_response_length: 256, apply_chat_template_kwargs: {enable_thinking: false}}
rollout: {turns: 8}
workflow_r1:
  prompt: none
  limits: {max_calls: 8, max_turns: "${rollout.turns}"}
  pool: {names: [Review, Revise]}
  operators: {base_url: "http://127.0.0.1:1/v1"}
"""


def trained(folder: Path, config: str = CONFIG) -> Path:
    step = folder / "global_step_20"
    touch(step / "actor" / "fsdp_config.json", step / "merged" / "config.json", step / "merged" / "model.safetensors")
    (folder / "latest_checkpointed_iteration.txt").write_text("20")
    (step / "config.yaml").write_text(config)
    return folder


@pytest.mark.parametrize("named", [".", "global_step_20", "global_step_20/actor", "global_step_20/merged"])
def test_a_checkpoint_is_asked_as_it_was_trained(named: str, tmp_path: Path) -> None:
    settings = parse_settings(PolicySettings, {"policy": str(trained(tmp_path) / named)}, "ask")
    assert (settings.prompt, settings.max_response_tokens) == ("none", 256)
    assert settings.limits == RolloutLimits(max_calls=8, max_turns=8)
    assert settings.pool == PoolSettings(names=("Review", "Revise"))
    assert settings.template_arguments == {"enable_thinking": False}
    assert settings.operators == {}  # the endpoint is this machine's


def test_what_is_said_wins_over_how_it_was_trained(tmp_path: Path) -> None:
    given = {"prompt": "default", "limits": {"max_calls": 3}, "pool": {"search": True}, "max_response_tokens": 64}
    settings = parse_settings(PolicySettings, {"policy": str(trained(tmp_path)), **given}, "ask")
    assert (settings.prompt, settings.max_response_tokens) == ("default", 64)
    assert settings.limits == RolloutLimits(max_calls=3, max_turns=8)
    assert settings.pool == PoolSettings(names=("Review", "Revise"), search=True)


@pytest.mark.parametrize("config", ["data: {max_response_length: 256}", "workflow_r1: null", "data", "{}"])
def test_a_checkpoint_of_another_program_is_asked_by_the_defaults(config: str, tmp_path: Path) -> None:
    policy = str(trained(tmp_path, config))
    assert parse_settings(PolicySettings, {"policy": policy}, "ask") == PolicySettings(policy=policy)


@pytest.mark.parametrize("config", ["workflow_r1: {", "workflow_r1: {prompt: ${nowhere}}", "\x00", "[1, 2]"])
def test_a_torn_configuration_of_a_checkpoint_is_one_sentence(config: str, tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"global_step_20/config\.yaml, which says how .*\): put it back"
    ) as error:
        parse_settings(PolicySettings, {"policy": str(trained(tmp_path, config))}, "ask")
    assert "\n" not in str(error.value)


def test_a_limit_of_a_checkpoint_that_there_no_longer_is_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"ask: limits\.max_steps: "):
        parse_settings(
            PolicySettings, {"policy": str(trained(tmp_path, "workflow_r1: {limits: {max_steps: 1}}"))}, "ask"
        )


def test_weights_that_verl_saved_for_hugging_face_need_no_merging(tmp_path: Path) -> None:
    exported = tmp_path / "actor" / "huggingface"
    touch(tmp_path / "actor" / "fsdp_config.json", exported / "config.json", exported / "model-1.safetensors")
    assert find_checkpoint(tmp_path) == exported


def test_an_adapted_model_is_taken_from_its_shards_whatever_verl_exported(tmp_path: Path) -> None:
    actor = tmp_path / "actor"
    touch(actor / "fsdp_config.json", actor / "lora_train_meta.json")
    touch(actor / "huggingface" / "config.json", actor / "huggingface" / "model.safetensors")
    assert find_checkpoint(tmp_path) == actor


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path) -> None:
    touch(tmp_path / "config.json")
    with pytest.raises(EvaluationError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(EvaluationError, match="There is no folder"):
        find_checkpoint(tmp_path / "none")


def test_a_name_that_is_no_path_is_a_model_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PolicySettings(policy="Qwen/Qwen2.5-7B-Instruct").checkpoint() == "Qwen/Qwen2.5-7B-Instruct"
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "runs/last/config.json", tmp_path / "runs/last/model.safetensors")
    assert PolicySettings(policy="runs/last").checkpoint() == str(tmp_path / "runs/last")
    with pytest.raises(EvaluationError, match="There is no folder"):
        PolicySettings(policy="./runs/first").checkpoint()


def python_that(does: str, folder: Path) -> str:
    """A stand-in for the Python that would run the merger: `$target` is where it has to write. Supervisors run."""
    script = folder / "python"
    supervisor = f'[ "$2" != workflow_r1.system.supervision ] || exec {sys.executable} "$@"'
    script.write_text(f'#!/bin/sh\n{supervisor}\necho "$@" >> {folder}/calls\nfor target; do :; done\n{does}\n')
    script.chmod(0o755)
    return str(script)


async def test_shards_are_merged_once_and_again_when_they_are_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = tmp_path / "actor"
    touch(actor / "fsdp_config.json", actor / "model_world_size_1_rank_0.pt")
    merger = python_that('mkdir "$target" && touch "$target/config.json" "$target/model.safetensors"', tmp_path)
    monkeypatch.setattr("workflow_r1.evaluation.checkpoint.sys.executable", merger)

    assert await merged_checkpoint(str(actor), os.environ) == str(tmp_path / "merged")
    await merged_checkpoint(str(actor), os.environ)
    assert (tmp_path / "calls").read_text().count("-m workflow_r1.verl_plugin.merge") == 1
    newer = (tmp_path / "merged/config.json").stat().st_mtime + 10
    os.utime(actor / "model_world_size_1_rank_0.pt", (newer, newer))
    await merged_checkpoint(str(actor), os.environ)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


async def test_a_merge_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "actor" / "fsdp_config.json")
    merger = python_that('mkdir "$target"; echo Traceback; echo "FileNotFoundError: rank 1" >&2; exit 1', tmp_path)
    monkeypatch.setattr("workflow_r1.evaluation.checkpoint.sys.executable", merger)
    with pytest.raises(EvaluationError, match="FileNotFoundError: rank 1"):
        await merged_checkpoint(str(tmp_path / "actor"), os.environ)
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "merged.unfinished").exists()


async def test_an_interrupted_merge_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "actor" / "fsdp_config.json")
    monkeypatch.setattr("workflow_r1.evaluation.checkpoint.sys.executable", python_that("exec sleep 600", tmp_path))
    before = psutil.Process().children()
    merging = asyncio.create_task(merged_checkpoint(str(tmp_path / "actor"), os.environ))
    await until(lambda: psutil.Process().children() != before)
    merging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await merging
    assert psutil.Process().children() == before
