"""verl's synchronous trainer, plus a clean end: when the operators' budget is spent, when their endpoint keeps failing,
or when too many rollouts raise.

Selected with `trainer.v1.trainer_mode=workflow_r1`, through verl's own trainer registry.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from ray.exceptions import RayError

from workflow_r1.runs.checkpoints import CONFIG_FILE, step_folder
from workflow_r1.runs.stop import Stop, write_stop
from workflow_r1.verl_plugin import patches  # noqa: F401  (takes hold by being imported)
from workflow_r1.verl_plugin.measuring import MeasuringTrainer
from workflow_r1.verl_plugin.stops import RolloutsLost, RunStopped, describe
from workflow_r1.verl_plugin.upstream import register_trainer


@register_trainer("workflow_r1")
class WorkflowTrainer(MeasuringTrainer):
    """Stops at a checkpoint when `WorkflowReplayBuffer` has a reason to."""

    replay_buffer: Any  # a WorkflowReplayBuffer, by the configuration

    def __init__(self, config: Any):
        super().__init__(config)
        self.trainer_mode = "sync"  # verl's name for what this is; it asks for it in many places
        self._stop_reason: str | None = None
        self._saved_step = 0
        self._data_position: Any = None  # of the data loader after the last whole step

    def init(self) -> None:
        with self._saying_why_it_ends():
            super().init()

    def on_init_end(self) -> None:
        super().on_init_end()
        self._saved_step = self.global_steps  # the one that was resumed from

    def fit(self, agent_loop_manager: Any) -> None:
        if dead_worker := getattr(agent_loop_manager, "dead_worker", None):  # a user's own manager may have none
            self.replay_buffer.watch(dead_worker)
        with self._saying_why_it_ends():
            super().fit(agent_loop_manager)
            if self._stop_reason:  # there was no further step to begin
                raise RunStopped(self._stop_reason)

    @contextmanager
    def _saying_why_it_ends(self) -> Iterator[None]:
        """The launcher reads it from the run's folder."""
        try:
            yield
        except Exception as error:
            on_purpose = isinstance(error, RunStopped)
            stop = Stop(reason=str(error) if on_purpose else describe(error), on_purpose=on_purpose)
            write_stop(Path(self.config.trainer.default_local_dir), stop)
            raise

    def on_step_begin(self) -> None:
        if self._stop_reason:  # the step that met the reason has been validated and logged by now
            raise RunStopped(self._stop_reason)
        super().on_step_begin()

    def step(self, metrics: dict, timing_raw: dict) -> Any:
        try:
            return super().step(metrics, timing_raw)
        except RolloutsLost as error:
            # What is saved is the step before: when the run goes on, this one's questions are asked again.
            self.global_steps -= 1
            if self._data_position is not None:
                self.train_dataloader.load_state_dict(self._data_position)
            self._save_while_servers_run()
            raise RunStopped(str(error)) from None

    def on_step_end(self) -> None:
        self._data_position = self.train_dataloader.state_dict()
        if self.global_steps < self.total_training_steps:
            self._stop_reason = self.replay_buffer.recorder.stop_reason()
        if self._stop_reason:
            self._save_once()  # while the rollout servers sleep: awake, they hold the memory that it takes
        super().on_step_end()

    def _validate(self) -> dict[str, float]:
        try:
            metrics = super()._validate()
        except RolloutsLost as error:
            metrics, self._stop_reason = {}, str(error)
            self._save_while_servers_run()
        metrics["workflow/validation_rollouts_lost"] = self.replay_buffer.take_lost("val")
        if (unscored := self.replay_buffer.recorder.take_unscored()) is not None:
            metrics["workflow/validation_unscored"] = unscored
        return metrics

    def _save_checkpoint(self) -> None:
        """A checkpoint keeps the configuration that made it, with which a later start is compared."""
        folder = step_folder(Path(self.config.trainer.default_local_dir), self.global_steps)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / CONFIG_FILE)
        super()._save_checkpoint()
        self._saved_step = self.global_steps

    def _save_once(self) -> None:
        if self._saved_step != self.global_steps:
            self._save_checkpoint()

    def _save_while_servers_run(self) -> None:
        with suppress(RayError):  # one that has died cannot be sent to sleep
            self.checkpoint_manager.sleep_replicas()
        self._save_once()
