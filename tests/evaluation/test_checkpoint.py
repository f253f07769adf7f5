"""What a user may name as a checkpoint, and how verl's shards become a model."""

import os
from pathlib import Path

import pytest

from workflow_r1.evaluation.checkpoint import find_checkpoint, merged_checkpoint
from workflow_r1.evaluation.config import PolicySettings
from workflow_r1.evaluation.errors import EvaluationError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_a_hugging_face_folder_is_itself(tmp_path: Path) -> None:
    touch(tmp_path / "config.json", tmp_path / "model.safetensors")
    assert find_checkpoint(tmp_path) == tmp_path
    assert merged_checkpoint(tmp_path, {}) == tmp_path


@pytest.mark.parametrize("named", [".", "global_step_20", "global_step_20/actor"])
def test_a_run_a_step_and_its_shards_mean_the_same(named: str, tmp_path: Path) -> None:
    actor = tmp_path / "global_step_20" / "actor"
    touch(actor / "fsdp_config.json", actor / "huggingface" / "config.json", tmp_path / "global_step_10" / "x")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    assert find_checkpoint(tmp_path / named) == actor


def test_weights_that_verl_saved_for_hugging_face_need_no_merging(tmp_path: Path) -> None:
    exported = tmp_path / "actor" / "huggingface"
    touch(tmp_path / "actor" / "fsdp_config.json", exported / "config.json", exported / "model-1.safetensors")
    assert find_checkpoint(tmp_path) == exported


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


def test_shards_are_merged_once_and_again_when_they_are_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = tmp_path / "actor"
    touch(actor / "fsdp_config.json", actor / "model_world_size_1_rank_0.pt")
    merges = []

    def merge(command: list[str], **_: object) -> object:
        target = Path(command[command.index("--target_dir") + 1])
        touch(target / "config.json", target / "model.safetensors")
        merges.append(command)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr("workflow_r1.evaluation.checkpoint.subprocess.run", merge)
    assert merged_checkpoint(actor, {}) == tmp_path / "merged"
    merged_checkpoint(actor, {})
    assert len(merges) == 1
    newer = (tmp_path / "merged/config.json").stat().st_mtime + 10
    os.utime(actor / "model_world_size_1_rank_0.pt", (newer, newer))
    merged_checkpoint(actor, {})
    assert len(merges) == 2
    assert "verl.model_merger" in merges[0]


def test_a_merge_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "actor" / "fsdp_config.json")
    failed = type("Failed", (), {"returncode": 1, "stderr": "Traceback\nFileNotFoundError: rank 1", "stdout": ""})
    monkeypatch.setattr("workflow_r1.evaluation.checkpoint.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(EvaluationError, match="FileNotFoundError: rank 1"):
        merged_checkpoint(tmp_path / "actor", {})
    assert [path.name for path in tmp_path.iterdir()] == ["actor"]
