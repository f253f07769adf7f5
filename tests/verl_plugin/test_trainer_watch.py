"""What `WorkflowTrainer` makes of its watch and of its validations, in verl's own training loop."""

import json
import os
from pathlib import Path

import pytest
from support.trainer import Trainer, run, steps_saved
from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager

from workflow_r1.runs.best_checkpoint import BestCheckpoint
from workflow_r1.runs.checkpoints import BEST, last_step
from workflow_r1.runs.run_watch import read_warnings
from workflow_r1.runs.stop import read_stop

MALFORMED = {"workflow/malformed": 0.75}
STOPS = "+workflow_r1.watch.stop_on=[malformed]"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the run's folder is a relative one


def score(value: float) -> dict[str, float]:
    return {"val-core/a/acc/mean@1": value, "val-core/b/acc/mean@1": value}


def best(trainer: Trainer) -> tuple[int, str]:
    step = last_step(trainer._folder / BEST)
    return step, (trainer._folder / BEST / f"global_step_{step}" / "actor" / "model.pt").read_text()


def test_a_warning_is_logged_with_its_step_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=1")
    trainer.measured = {3: MALFORMED}
    assert run(trainer) is None
    assert trainer.logged[3]["watch/malformed"] == 1.0
    assert "watch/malformed" not in trainer.logged[2]  # it could not be judged
    assert [warned.step for warned in read_warnings(trainer._folder)] == [3]
    assert steps_saved(trainer) == [1, 2, 3, 4]


@pytest.mark.parametrize("save_freq", [1, 2])
def test_a_stop_leaves_the_checkpoint_before_as_the_newest(monkeypatch: pytest.MonkeyPatch, save_freq: int):
    trainer = Trainer(monkeypatch, f"trainer.save_freq={save_freq}", STOPS)
    trainer.measured = {3: MALFORMED}
    reason = run(trainer)
    assert reason is not None
    assert reason.startswith("At step 3 many trajectories break the format")
    assert steps_saved(trainer)[-1] == last_step(trainer._folder) == 2
    assert trainer.logged[3]["watch/malformed"] == 1.0
    assert list(trainer.asked) == [1, 2, 3]
    assert read_stop(trainer._folder).on_purpose


def test_a_step_that_went_wrong_is_neither_validated_nor_saved_though_both_are_due(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=1", "trainer.test_freq=1", STOPS)
    trainer.measured, trainer.validated = {4: MALFORMED}, {4: score(1.0)}  # the last step
    trainer.recorder.stop_reason = lambda: None
    assert run(trainer) is not None
    assert steps_saved(trainer) == [1, 2, 3]
    assert "val" not in trainer.logged[4]


def test_a_stop_wins_over_a_budget_that_would_save(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=-1", STOPS)
    trainer.measured = {2: MALFORMED}
    trainer.recorder.stop_reason = lambda: "The budget is spent." if trainer.global_steps == 2 else None
    assert run(trainer).startswith("At step 2 many trajectories")
    assert trainer.saved == []


def test_a_resumed_run_goes_on_from_the_metrics_of_its_folder(monkeypatch: pytest.MonkeyPatch):
    first = Trainer(monkeypatch)
    first._folder.mkdir(parents=True)
    records = [{"step": step, "data": MALFORMED} for step in (0, 1, 2)] + [
        {"step": 3, "data": {"workflow/malformed": 0.0}}
    ]
    (first._folder / "metrics-001.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    resumed = Trainer(monkeypatch, start=2)
    resumed.measured = {3: MALFORMED}
    assert run(resumed) is None
    assert read_warnings(resumed._folder) == []  # it was met in step 2 too, and said then
    begun = Trainer(monkeypatch)
    begun.measured = {1: MALFORMED}
    run(begun)
    assert [warned.step for warned in read_warnings(begun._folder)] == [1]


def test_the_best_validated_checkpoint_is_kept(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=1", "trainer.test_freq=1")
    trainer.validated = {0: score(0.9), 1: score(0.25), 2: score(0.5), 3: score(0.5), 4: score(0.25)}
    assert run(trainer) is None
    assert best(trainer) == (2, "weights of step 2")
    assert last_step(trainer._folder) == 4
    assert BestCheckpoint(trainer._folder).score == 0.5


def test_a_best_step_that_is_not_due_is_saved_once_and_the_servers_wake_again(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=4", "trainer.test_freq=2")
    trainer.validated = {2: score(0.5), 4: score(0.25)}
    woken = []
    validate_end = trainer.on_validate_end
    trainer.on_validate_end = lambda: (woken.append(trainer.checkpoint_manager.awake), validate_end())  # type: ignore[method-assign]
    assert run(trainer) is None
    assert [(step, awake) for step, _, awake in trainer.saved] == [(2, False), (4, False)]
    assert woken == [True, True, True]
    assert best(trainer) == (2, "weights of step 2")


def test_a_resumed_run_knows_the_best_before_and_saves_beside_it(monkeypatch: pytest.MonkeyPatch):
    first = Trainer(monkeypatch, "trainer.save_freq=1", "trainer.test_freq=1")
    first.validated = {1: score(0.25), 2: score(0.75)}
    run(first)
    resumed = Trainer(monkeypatch, "trainer.save_freq=1", "trainer.test_freq=1", start=1)
    resumed.validated = {1: score(1.0), 2: score(0.5), 4: score(0.5)}  # step 1 was validated by the start before
    (resumed._folder / BEST / "global_step_2" / "actor" / "model.pt").write_text("the best weights")
    assert run(resumed) is None
    assert best(resumed) == (2, "the best weights")


def test_what_verl_removes_is_not_the_best(tmp_path: Path):
    run_folder = tmp_path / "run"
    for step in (1, 2):
        (run_folder / f"global_step_{step}" / "actor").mkdir(parents=True)
        (run_folder / f"global_step_{step}" / "actor" / "model.pt").write_text(f"weights of step {step}")
    BestCheckpoint(run_folder).replace(1, 0.5)
    manager = object.__new__(BaseCheckpointManager)
    manager.previous_saved_paths = []
    for step in (1, 2):
        manager.register_checkpoint(str(run_folder / f"global_step_{step}" / "actor"), max_ckpt_to_keep=1)
    assert not (run_folder / "global_step_1" / "actor").exists()
    assert (run_folder / BEST / "global_step_1" / "actor" / "model.pt").read_text() == "weights of step 1"


@pytest.mark.parametrize("setting", ["trainer.save_freq=-1", "+workflow_r1.watch.keep_best=false"])
def test_nothing_is_kept_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, setting: str):
    trainer = Trainer(monkeypatch, "trainer.save_freq=2", "trainer.test_freq=1", setting)
    trainer.validated = {1: score(0.5), 2: score(0.75)}
    assert run(trainer) is None
    assert not (trainer._folder / BEST).exists()


def test_a_file_system_without_hard_links_is_said_and_ends_nothing(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    trainer = Trainer(monkeypatch, "trainer.save_freq=2")
    trainer.validated = {2: score(0.5)}
    assert run(trainer) is None
    [warned] = read_warnings(trainer._folder)
    assert warned.step == 2
    assert warned.text.startswith("the best checkpoint, of this step, is not kept beside the newest (")
