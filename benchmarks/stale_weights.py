"""A sampler that is off-policy on purpose: the embedded run's weights reach it every fourth step only.

For benchmarks/off_policy_learning.py, which has verl import it (VERL_USE_EXTERNAL_MODULES).
"""

from typing import Any

from wrapt import register_post_import_hook, wrap_function_wrapper

EVERY = 4  # steps


def _push_seldom(module: Any) -> None:
    def on_step_end(wrapped: Any, trainer: Any, args: tuple, kwargs: dict) -> None:
        manager = trainer.checkpoint_manager
        if trainer.global_steps % EVERY:
            manager.update_weights = lambda global_steps: manager.wake_up_replicas()
        try:
            wrapped(*args, **kwargs)
        finally:
            vars(manager).pop("update_weights", None)

    wrap_function_wrapper(module, "WorkflowTrainer.on_step_end", on_step_end)


register_post_import_hook(_push_seldom, "workflow_r1.verl_plugin.trainer")
