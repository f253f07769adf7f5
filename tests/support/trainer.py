"""`WorkflowTrainer` in verl's own training loop, without workers: questions are taken, and nothing is rolled out."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import transfer_queue
from ray.exceptions import RayActorError
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from workflow_r1.runs.checkpoints import LATEST_FILE
from workflow_r1.runs.recipe import EMBEDDED, compose_recipe
from workflow_r1.verl_plugin.stops import RolloutsLost, RunStopped
from workflow_r1.verl_plugin.trainer import WorkflowTrainer

STEPS = 4


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
        measured, validated: metrics that the steps and their validations have besides.
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
        self._gone_wrong = False
        self._start_watch()
        self.batches: Any = None
        self.lost_at: set[tuple[str, int]] = set()
        self.asked: dict[int, list[int]] = {}
        self.logged: dict[int, dict[str, float]] = {}
        self.saved: list[tuple[int, Any, bool]] = []
        self.measured: dict[int, dict[str, float]] = {}
        self.validated: dict[int, dict[str, float]] = {}
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
        metrics.update({"loss": 0.5, **self.measured.get(self.global_steps, {})})
        return SimpleNamespace(keys=[], partition_id="train")

    def validate(self) -> dict[str, float]:
        if ("val", self.global_steps) in self.lost_at:
            raise RolloutsLost("3 of 4 validation rollouts raised.")
        return {"val": 1.0, **self.validated.get(self.global_steps, {})}

    def save(self) -> None:
        actor = self._folder / f"global_step_{self.global_steps}" / "actor"
        actor.mkdir(parents=True)
        (actor / "model.pt").write_text(f"weights of step {self.global_steps}")
        (self._folder / LATEST_FILE).write_text(str(self.global_steps))
        self.saved.append((self.global_steps, self.train_dataloader.state_dict(), self.checkpoint_manager.awake))


def run(trainer: Trainer) -> str | None:
    try:
        trainer.fit(SimpleNamespace())
    except RunStopped as stopped:
        return str(stopped)
    return None


def steps_saved(trainer: Trainer) -> Sequence[int]:
    return [step for step, _, _ in trainer.saved]
