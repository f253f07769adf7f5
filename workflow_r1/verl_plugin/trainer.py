"""verl's synchronous trainer, plus a clean end: when the operators' budget is spent, or their endpoint keeps failing.

Selected with `trainer.v1.trainer_mode=workflow_r1`, through verl's own trainer registry.
"""

from typing import Any

from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync


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

    def on_step_end(self) -> None:
        super().on_step_end()
        self._stop_reason = self.replay_buffer.stop_reason()
        if self._stop_reason:
            self._save_checkpoint()
