"""When and how `WorkflowTrainer` stops, in verl's own training loop: what it saves, and while what sleeps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.trainer import STEPS, Trainer, run, steps_saved
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from workflow_r1.runs.stop import Stop, forget_stop, read_stop


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the run's folder is a relative one


def test_a_run_without_a_reason_to_stop_goes_to_its_end(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=2")
    assert run(trainer) is None
    assert list(trainer.logged) == [0, 1, 2, 3, 4]
    assert steps_saved(trainer) == [2, 4]


def test_a_budget_stop_saves_its_step_while_the_servers_sleep_and_logs_it(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch)
    trainer.recorder.stop_reason = lambda: "The budget is spent." if trainer.global_steps == 2 else None
    assert run(trainer) == "The budget is spent."
    assert [(step, awake) for step, _, awake in trainer.saved] == [(2, False)]
    assert trainer.logged[2]["loss"] == 0.5
    assert trainer.logged[2]["val"] == 1.0


def test_a_step_that_verl_has_saved_is_not_saved_again(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch, "trainer.save_freq=1")
    trainer.recorder.stop_reason = lambda: "The budget is spent." if trainer.global_steps == 2 else None
    assert run(trainer) == "The budget is spent."
    assert steps_saved(trainer) == [1, 2]


def test_a_budget_that_the_last_step_spends_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch)
    trainer.recorder.stop_reason = lambda: "The budget is spent." if trainer.global_steps == STEPS else None
    assert run(trainer) is None


@pytest.mark.parametrize("dead", [False, True])
def test_a_lost_batch_stops_at_the_step_before_and_is_asked_again(monkeypatch: pytest.MonkeyPatch, dead: bool):
    trainer = Trainer(monkeypatch)
    trainer.lost_at = {("train", 3)}
    if dead:  # with the servers, from the third step on
        take_step = Trainer.take_step

        def step(self: Trainer, metrics: dict, timing_raw: dict) -> Any:
            self.checkpoint_manager.dead = self.global_steps == 3
            return take_step(self, metrics, timing_raw)

        monkeypatch.setattr(PPOTrainer, "step", step)
    assert run(trainer) == "28 of 32 rollouts raised."
    [(step_saved, position, awake)] = trainer.saved
    assert (step_saved, awake) == (2, dead)
    resumed = Trainer(monkeypatch, start=2, data_position=position)
    assert run(resumed) is None
    assert resumed.asked == {3: trainer.asked[3], 4: [6, 7]}


def test_a_lost_batch_right_after_a_checkpoint_saves_nothing(monkeypatch: pytest.MonkeyPatch):
    for start, first in ((0, 1), (2, 3)):
        trainer = Trainer(monkeypatch, start=start)
        trainer.lost_at = {("train", first)}
        assert run(trainer) == "28 of 32 rollouts raised."
        assert trainer.saved == []


def test_a_lost_validation_stops_once_its_step_is_saved_and_logged(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch)
    trainer.lost_at, trainer.replay_buffer.take_lost = {("val", 2)}, lambda partition: 3
    assert run(trainer) == "3 of 4 validation rollouts raised."
    assert [(step, awake) for step, _, awake in trainer.saved] == [(2, False)]
    assert trainer.logged[2] == {"loss": 0.5, "workflow/validation_rollouts_lost": 3, "workflow/validation_unscored": 0}
    assert 3 not in trainer.asked


@pytest.mark.parametrize(("step", "settings"), [(0, []), (0, ["trainer.val_only=true"]), (STEPS, [])])
def test_a_lost_validation_at_either_end_of_a_run_is_said_too(
    monkeypatch: pytest.MonkeyPatch, step: int, settings: list[str]
):
    trainer = Trainer(monkeypatch, *settings)
    trainer.lost_at = {("val", step)}
    assert run(trainer) == "3 of 4 validation rollouts raised."
    assert steps_saved(trainer) == ([STEPS] if step else [])


def test_a_validations_losses_are_logged(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch)
    trainer.replay_buffer.take_lost = lambda partition: {"val": 1}[partition]
    trainer.recorder.take_unscored = lambda: 0.25
    assert run(trainer) is None
    lost = {"workflow/validation_rollouts_lost": 1, "workflow/validation_unscored": 0.25}
    assert trainer.logged[2] == {"loss": 0.5, "val": 1.0, **lost}


def test_why_it_ended_is_in_a_file_of_its_folder(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch)
    folder = Path(trainer.config.trainer.default_local_dir)
    assert run(trainer) is None
    assert read_stop(folder) is None
    trainer = Trainer(monkeypatch)
    trainer.recorder.stop_reason = lambda: "The budget is spent."
    run(trainer)
    assert read_stop(folder) == Stop(reason="The budget is spent.", on_purpose=True)
    forget_stop(folder)
    assert read_stop(folder) is None


def test_a_failure_leaves_its_cause_in_one_line(monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(monkeypatch)
    monkeypatch.setattr(PPOTrainer, "step", lambda *_: {}["no such\nkey"])
    with pytest.raises(KeyError):
        trainer.fit(SimpleNamespace())
    stop = read_stop(Path(trainer.config.trainer.default_local_dir))
    assert stop == Stop(reason="KeyError: 'no such\\nkey'", on_purpose=False)
