"""A run starts where its settings say, and nothing that an earlier run left is replaced unseen."""

from pathlib import Path

import pytest

from workflow_r1.runs.recipe import LaunchError
from workflow_r1.runs.resume import Start, find_start, set_aside, starts_anew


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder after three steps."""
    folder = tmp_path / "run"
    for step in (1, 2, 3):
        (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("3")
    (folder / "best" / "global_step_2" / "actor").mkdir(parents=True)
    left = ("metrics-001.jsonl", "watch.jsonl", "train.log", "reward_curve.png", "trajectories/val/3.jsonl")
    for name in (*left, "data/mine.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_by_default_it_resumes_from_the_last_checkpoint(recipe, folder, tmp_path):
    assert find_start(recipe(), folder) == Start(3, folder / "global_step_3")
    assert find_start(recipe(), tmp_path / "new") == Start(0, None)
    assert not starts_anew(recipe(), find_start(recipe(), folder), folder)


@pytest.mark.parametrize("named", ["global_step_2", "global_step_2/"])
def test_a_checkpoint_that_is_named_is_where_it_starts(recipe, folder, monkeypatch, named):
    monkeypatch.chdir(folder)
    config = recipe({"trainer.resume_mode": "resume_path", "trainer.resume_from_path": named})
    start = find_start(config, folder)
    assert start == Start(2, folder / "global_step_2")
    assert not starts_anew(config, start, folder)
    assert starts_anew(config, start, folder.parent / "other")


def test_the_best_checkpoint_of_a_run_is_its_own(recipe, folder):
    best = folder / "best" / "global_step_2"
    config = recipe({"trainer.resume_mode": "resume_path", "trainer.resume_from_path": str(best)})
    start = find_start(config, folder)
    assert start == Start(2, best)
    assert start.folder == folder
    assert not starts_anew(config, start, folder)


def test_without_resuming_it_starts_at_nothing(recipe, folder):
    config = recipe({"trainer.resume_mode": "disable"})
    assert find_start(config, folder) == Start(0, None)
    assert starts_anew(config, Start(), folder)
    config.trainer.val_only = True
    assert not starts_anew(config, Start(), folder)


def test_what_an_earlier_run_left_is_set_aside_whole(folder):
    aside = set_aside(folder)
    assert aside == folder / "earlier-001"
    assert sorted(path.name for path in folder.iterdir()) == ["data", "earlier-001"]
    assert (aside / "latest_checkpointed_iteration.txt").read_text() == "3"
    assert (aside / "global_step_2" / "actor").is_dir()
    assert (aside / "trajectories" / "val" / "3.jsonl").is_file()
    assert set_aside(folder) is None
    (folder / "metrics-001.jsonl").touch()
    assert set_aside(folder) == folder / "earlier-002"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resume_mode": "never"}, "trainer.resume_mode=never is unknown: take auto, disable or resume_path."),
        ({"resume_mode": "resume_path"}, "trainer.resume_from_path=None is no checkpoint"),
        ({"resume_mode": "resume_path", "resume_from_path": "/nowhere/global_step_4"}, "is no checkpoint: name the"),
        ({"resume_mode": "resume_path", "resume_from_path": "."}, "is no checkpoint: name the"),
        ({"resume_from_path": "global_step_2"}, "is read with trainer.resume_mode=resume_path only, which is auto"),
    ],
)
def test_what_verl_would_ignore_or_fail_at_is_a_sentence(recipe, folder, settings, sentence):
    config = recipe({f"trainer.{name}": value for name, value in settings.items()})
    with pytest.raises(LaunchError) as error:
        find_start(config, folder)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("marker", ["7", "", "three"])
def test_a_marker_without_its_checkpoint_does_not_start_over_in_silence(recipe, folder, marker):
    (folder / "latest_checkpointed_iteration.txt").write_text(marker)
    with pytest.raises(LaunchError, match="names no checkpoint of this folder"):
        find_start(recipe(), folder)
