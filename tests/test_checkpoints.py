from pathlib import Path

import pytest

from workflow_r1.checkpoints import last_step


@pytest.mark.parametrize(("marker", "step"), [("20", 20), ("38\n", 38), ("", 0), ("none", 0)])
def test_the_last_step_is_the_one_that_verl_noted_down(marker: str, step: int, tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(marker)
    assert last_step(tmp_path) == step


def test_a_folder_without_checkpoints_is_at_step_0(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    assert last_step(tmp_path / "none") == 0
