"""verl's synchronous trainer, plus a clean end: when the operators' budget is spent, when their endpoint keeps failing,
when too many rollouts raise, or when the run's watch asks for it; and plus the best checkpoint beside the newest.

Selected with `trainer.v1.trainer_mode=workflow_r1`, through verl's own trainer registry.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from ray.exceptions import RayError

from workflow_r1.config import WorkflowConfig
from workflow_r1.runs.best_checkpoint import BestCheckpoint
from workflow_r1.runs.checkpoints import CONFIG_FILE, run_folder, step_folder
from workflow_r1.runs.progress import read_metrics, validation_score
from workflow_r1.runs.run_watch import RunWatch
from workflow_r1.runs.stop import Stop, write_stop
from workflow_r1.verl_plugin import patches  # noqa: F401  (takes hold by being imported)
from workflow_r1.verl_plugin.information_gain import InformedTrainer
from workflow_r1.verl_plugin.stops import RolloutsLost, RunStopped, describe
from workflow_r1.verl_plugin.upstream import register_trainer


@register_trainer("workflow_r1")
class WorkflowTrainer(InformedTrainer):
    """Stops at a checkpoint when `RunRecorder` has a reason to, and at the one before when `RunWatch` has."""

    replay_buffer: Any  # a WorkflowReplayBuffer, by the configuration

    def __init__(self, config: Any):
        super().__init__(config)
        self.trainer_mode = "sync"  # verl's name for what this is; it asks for it in many places
        self._stop_reason: str | None = None
        self._saved_step = 0
        self._data_position: Any = None  # of the data loader after the last whole step
        self._gone_wrong = False  # then the weights are no longer worth saving

    def _build_replay_buffer(self) -> Any:
        buffer: Any = super()._build_replay_buffer()
        buffer.configure(self.config)
        return buffer

    def init(self) -> None:
        with self._saying_why_it_ends():
            super().init()

    def on_init_end(self) -> None:
        super().on_init_end()
        self._saved_step = self.global_steps  # the one that was resumed from
        self._start_watch()

    def _start_watch(self) -> None:
        """From where the run starts: the steps before are in the metrics of the folder that it is resumed from."""
        trainer, settings = self.config.trainer, WorkflowConfig.parse(self.config).watch
        named = trainer.resume_mode == "resume_path"
        before = run_folder(Path(trainer.resume_from_path)) if named else self._folder
        history = [data for step, data in read_metrics(before).items() if 0 < step <= self.global_steps]
        self._watch = RunWatch(settings, self._folder, history)
        self._best = BestCheckpoint(self._folder) if settings.keep_best and trainer.save_freq > 0 else None

    @property
    def _folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir)

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
            write_stop(self._folder, stop)
            raise

    def on_step_begin(self) -> None:
        if self._stop_reason:  # the step that met the reason has been validated and logged by now
            raise RunStopped(self._stop_reason)
        super().on_step_begin()

    def step(self, metrics: dict, timing_raw: dict) -> Any:
        try:
            batch = super().step(metrics, timing_raw)
        except RolloutsLost as error:
            # What is saved is the step before: when the run goes on, this one's questions are asked again.
            self.global_steps -= 1
            if self._data_position is not None:
                self.train_dataloader.load_state_dict(self._data_position)
            self._save_while_servers_run()
            raise RunStopped(str(error)) from None
        self._stop_reason = self._watch.judge(self.global_steps, metrics)
        self._gone_wrong = self._stop_reason is not None
        return batch

    def on_step_end(self) -> None:
        self._data_position = self.train_dataloader.state_dict()
        if self.global_steps < self.total_training_steps and not self._gone_wrong:
            self._stop_reason = self.replay_buffer.recorder.stop_reason()
        if self._stop_reason:
            self._save_once()  # while the rollout servers sleep: awake, they hold the memory that it takes
        super().on_step_end()

    def _validate(self) -> dict[str, float]:
        if self._gone_wrong:
            return {}
        try:
            metrics = super()._validate()
        except RolloutsLost as error:
            metrics, self._stop_reason = {}, str(error)
            self._save_while_servers_run()
        metrics["workflow/validation_rollouts_lost"] = self.replay_buffer.take_lost("val")
        if (unscored := self.replay_buffer.recorder.take_unscored()) is not None:
            metrics["workflow/validation_unscored"] = unscored
        self._keep_best(metrics)
        return metrics

    def _keep_best(self, metrics: dict[str, float]) -> None:
        """Where no checkpoint of the validated step is due, one is saved, so that the best is not lost."""
        score = validation_score(metrics)
        is_start = self._data_position is None  # whose policy, if it is a checkpoint, was validated when it was saved
        if self._best is None or is_start or score is None or score <= self._best.score:
            return
        if self._saved_step != self.global_steps:
            self._save_while_servers_run()
            self.checkpoint_manager.update_weights(self.global_steps)  # which wakes them
        try:
            self._best.replace(self.global_steps, score)
        except OSError as error:
            self._watch.warn(
                self.global_steps,
                f"the best checkpoint, of this step, is not kept beside the newest ({error.strerror or error}): raise "
                "trainer.max_actor_ckpt_to_keep, or set workflow_r1.watch.keep_best=false.",
            )

    def _save_checkpoint(self) -> None:
        """A checkpoint keeps the configuration that made it, with which a later start is compared."""
        if self._gone_wrong:
            return
        folder = step_folder(self._folder, self.global_steps)
        shutil.rmtree(folder, ignore_errors=True)  # verl would write into its files, which may be those of the best
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
