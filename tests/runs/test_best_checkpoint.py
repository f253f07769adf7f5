"""The checkpoint with the best validation: kept without a second copy, whatever becomes of the others."""

import math
import os
import shutil
from pathlib import Path

import pytest

from workflow_r1.evaluation.checkpoint import find_checkpoint, trained_rollout
from workflow_r1.runs.best_checkpoint import BestCheckpoint
from workflow_r1.runs.checkpoints import BEST, CONFIG_FILE, LATEST_FILE, last_checkpoint
from workflow_r1.runs.recipe import compose_recipe
from workflow_r1.runs.resume import find_start


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with the checkpoints of steps 5 and 10."""
    for step in (5, 10):
        actor = tmp_path / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        (actor / "fsdp_config.json").write_text("{}")
        (actor / "model_world_size_1_rank_0.pt").write_text(f"weights {step}")
        (actor.parent / CONFIG_FILE).write_text("workflow_r1: {prompt: none}")
    (tmp_path / LATEST_FILE).write_text("10")
    return tmp_path


def weights(folder: Path) -> str:
    return (folder / "actor" / "model_world_size_1_rank_0.pt").read_text()


def test_it_shares_its_contents_and_outlives_the_checkpoint(run):
    BestCheckpoint(run).replace(5, 0.5)
    kept = run / BEST / "global_step_5"
    file = "actor/model_world_size_1_rank_0.pt"
    assert (kept / file).samefile(run / "global_step_5" / file)
    shutil.rmtree(run / "global_step_5" / "actor")  # as verl does
    assert weights(kept) == "weights 5"


def test_a_better_one_takes_its_place(run):
    best = BestCheckpoint(run)
    assert best.score == -math.inf
    best.replace(5, 0.5)
    best.replace(10, 0.1 + 0.2)
    assert [path.name for path in (run / BEST).glob("global_step_*")] == ["global_step_10"]
    assert BestCheckpoint(run).score == best.score == 0.1 + 0.2


def test_it_is_named_as_a_run_is_and_the_run_still_means_its_newest(run):
    BestCheckpoint(run).replace(5, 0.5)
    assert find_checkpoint(run / BEST) == run / BEST / "global_step_5" / "actor"
    assert trained_rollout(run / BEST) == {"prompt": "none"}
    assert find_checkpoint(run) == run / "global_step_10" / "actor"
    assert last_checkpoint(run) == run / "global_step_10"
    named = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={run / BEST / 'global_step_5'}"]
    assert find_start(compose_recipe("workflow_r1_embedded", named), run).step == 5


def test_without_hard_links_the_one_before_stays(run, monkeypatch):
    best = BestCheckpoint(run)
    best.replace(5, 0.5)

    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="Operation not supported"):
        best.replace(10, 0.75)
    assert (best.score, weights(run / BEST / "global_step_5")) == (0.5, "weights 5")
    assert sorted(path.name for path in run.iterdir()) == [BEST, "global_step_10", "global_step_5", LATEST_FILE]
