from pathlib import Path

import pytest

from workflow_r1.runs.checkpoints import last_checkpoint, last_step


@pytest.mark.parametrize(
    ("marker", "step"), [("20", 20), ("38\n", 38), ("", 0), ("none", 0), ("²", 0), ("9" * 5_000, 0)]
)
def test_the_last_step_is_the_one_that_verl_noted_down(marker: str, step: int, tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(marker)
    assert last_step(tmp_path) == step


def test_a_folder_without_checkpoints_is_at_step_0(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    assert last_step(tmp_path / "none") == 0


def test_the_last_checkpoint_is_the_one_that_verl_noted_down(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    assert last_checkpoint(tmp_path) is None  # noted down, and taken away since
    for name in ("global_step_20", "global_step_30", "global_step_20-hf"):
        (tmp_path / name).mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "global_step_20"
