"""verl's synchronous trainer, plus a clean end: when the operators' budget is spent, or their endpoint keeps failing.

Selected with `trainer.v1.trainer_mode=workflow_r1`, through verl's own trainer registry.
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from workflow_r1.checkpoints import CONFIG_FILE, step_folder


class RunStopped(RuntimeError):
    """The run ended early on purpose, with its checkpoint saved; the message says why and what to do."""


@register_trainer("workflow_r1")
class WorkflowTrainer(PPOTrainerSync):
    """Stops at a checkpoint when `WorkflowReplayBuffer` has a reason to."""

    replay_buffer: Any  # a WorkflowReplayBuffer, by the configuration

    def __init__(self, config: Any):
        super().__init__(config)
        self.trainer_mode = "sync"  # verl's name for what this is; it asks for it in many places
        self._stop_reason: str | None = None

    def on_step_begin(self) -> None:
        if self._stop_reason:  # the step that met the reason has been validated and logged by now
            raise RunStopped(self._stop_reason)
        super().on_step_begin()

    def _save_checkpoint(self) -> None:
        """A checkpoint keeps the configuration that made it, with which a later start is compared."""
        folder = step_folder(Path(self.config.trainer.default_local_dir), self.global_steps)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / CONFIG_FILE)
        super()._save_checkpoint()

    def on_step_end(self) -> None:
        super().on_step_end()
        self._stop_reason = self.replay_buffer.stop_reason()
        if self._stop_reason:
            self._save_checkpoint()
