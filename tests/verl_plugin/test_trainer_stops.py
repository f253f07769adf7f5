"""When and how `WorkflowTrainer` stops, in verl's own training loop: what it saves, and while what sleeps."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transfer_queue
from ray.exceptions import RayActorError
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from workflow_r1.runs.recipe import EMBEDDED, compose_recipe
from workflow_r1.runs.stop import Stop, forget_stop, read_stop
from workflow_r1.verl_plugin.stops import RolloutsLost, RunStopped
from workflow_r1.verl_plugin.trainer import WorkflowTrainer

STEPS = 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the run's folder is a relative one


class Servers:
    """Stands for verl's checkpoint manager: the rollout servers sleep while a step trains."""

    def __init__(self) -> None:
        self.awake, self.dead = True, False

    def update_weights(self, _: int) -> None:
        self.awake = True

    def sleep_replicas(self) -> None:
        if self.dead:
            raise RayActorError()
        self.awake = False


class Trainer(WorkflowTrainer):
    """In place of rollouts and updates, each step takes a batch of questions and each validation gives a metric.

    Attributes:
        asked: the questions of every step.
        saved: for every checkpoint its step, the questions that follow it, and whether the servers were awake.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *settings: str, start: int = 0, data_position: Any = None):
        overrides = [f"trainer.total_training_steps={STEPS}", "trainer.save_freq=-1", "trainer.test_freq=2", *settings]
        self.config = compose_recipe(EMBEDDED, overrides)
        self.global_steps, self.total_training_steps, self.steps_per_epoch = start, STEPS, 100
        self.trainer_mode, self._stop_reason, self._saved_step, self._data_position = "sync", None, start, None
        self.checkpoint_manager: Any = Servers()
        self.recorder = SimpleNamespace(stop_reason=lambda: None, take_unscored=lambda: 0.0)
        self.replay_buffer = SimpleNamespace(watch=lambda _: None, take_lost=lambda _: 0, recorder=self.recorder)
        self.train_dataloader = StatefulDataLoader(range(40), batch_size=2)
        if data_position is not None:
            self.train_dataloader.load_state_dict(data_position)
        self.batches: Any = None
        self.lost_at: set[tuple[str, int]] = set()
        self.asked: dict[int, list[int]] = {}
        self.logged: dict[int, dict[str, float]] = {}
        self.saved: list[tuple[int, Any, bool]] = []
        self._init_dump_executor()

        def log(_: Any, data: dict, step: int) -> None:
            self.logged[step] = data

        patch.setattr(trainer_base, "Tracking", lambda **_: SimpleNamespace(log=lambda **kwargs: log(None, **kwargs)))
        patch.setattr(transfer_queue, "kv_clear", lambda **_: None)
        for name in ("_compute_metrics", "_start_profiling", "_stop_profiling"):
            patch.setattr(PPOTrainer, name, lambda *_, **__: None)
        patch.setattr(PPOTrainer, "step", Trainer.take_step)
        patch.setattr(PPOTrainer, "_validate", Trainer.validate)
        patch.setattr(PPOTrainer, "_save_checkpoint", Trainer.save)

    def take_step(self, metrics: dict, timing_raw: dict) -> Any:
        self.batches = self.batches or iter(self.train_dataloader)
        self.asked[self.global_steps] = next(self.batches).tolist()
        if ("train", self.global_steps) in self.lost_at:
            raise RolloutsLost("28 of 32 rollouts raised.")
        self.checkpoint_manager.sleep_replicas()  # as verl does once a batch is sampled
        metrics["loss"] = 0.5
        return SimpleNamespace(keys=[], partition_id="train")

    def validate(self) -> dict[str, float]:
        if ("val", self.global_steps) in self.lost_at:
            raise RolloutsLost("3 of 4 validation rollouts raised.")
        return {"val": 1.0}

    def save(self) -> None:
        self.saved.append((self.global_steps, self.train_dataloader.state_dict(), self.checkpoint_manager.awake))


def run(trainer: Trainer) -> str | None:
    try:
        trainer.fit(SimpleNamespace())
    except RunStopped as stopped:
        return str(stopped)
    return None


def steps_saved(trainer: Trainer) -> Sequence[int]:
    return [step for step, _, _ in trainer.saved]


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
