"""All that this plug-in uses of verl's insides, none of which verl promises to keep.

The tables below are tried, name by name, by `tests/verl_plugin/test_upstream.py`, against whatever verl is installed.
Seen to work: the loss and the advantage with verl 0.7.1, 0.8.0, 0.9.0, 0.9.1 and main (0.10.0.dev, 22 August 2026),
everything with the last two.
"""

import importlib
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from wrapt import patch_function_wrapper, register_post_import_hook

REGISTRATIONS = {
    "verl.trainer.ppo.core_algos": "gsspo_loss",
    "verl.trainer.ppo.rollout_corr_helper": "rollout_correction",
    "verl.trainer.ppo.v1.trainer_base": "trainer",
    "verl.workers.rollout.llm_server": "calling_off",
    "verl.experimental.agent_loop.agent_loop": "agent_loop",
    "verl.experimental.reward_loop.reward_manager.registry": "reward_manager",
}
"""verl's modules with a registry, or a function that is patched, and our modules that fill it when imported."""

IMPORTED = {
    "DataProto": "verl:DataProto",
    "ADV_ESTIMATOR_REGISTRY": "verl.trainer.ppo.core_algos:ADV_ESTIMATOR_REGISTRY",
    "POLICY_LOSS_REGISTRY": "verl.trainer.ppo.core_algos:POLICY_LOSS_REGISTRY",
    "register_adv_est": "verl.trainer.ppo.core_algos:register_adv_est",
    "register_policy_loss": "verl.trainer.ppo.core_algos:register_policy_loss",
    "ActorConfig": "verl.workers.config:ActorConfig",
    "PolicyLossConfig": "verl.workers.config:PolicyLossConfig",
    "parse_is_threshold": "verl.trainer.ppo.rollout_corr_helper:_parse_rollout_is_threshold",
    "parse_rs_thresholds": "verl.trainer.ppo.rollout_corr_helper:_parse_rollout_rs_thresholds",
    "TRAINER_REGISTRY": "verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY",
    "register_trainer": "verl.trainer.ppo.v1.trainer_base:register_trainer",
    "PPOTrainerSync": "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync",
    "ReplayBuffer": "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer",
    "AgentLoopManagerTQ": "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopManagerTQ",
    "AgentLoopWorkerTQ": "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ.__ray_actor_class__",
    "AGENT_LOOP_REGISTRY": "verl.experimental.agent_loop.agent_loop:_agent_loop_registry",
    "AgentLoopBase": "verl.experimental.agent_loop.agent_loop:AgentLoopBase",
    "AgentLoopMetrics": "verl.experimental.agent_loop.agent_loop:AgentLoopMetrics",
    "AgentLoopOutput": "verl.experimental.agent_loop.agent_loop:AgentLoopOutput",
    "register_agent_loop": "verl.experimental.agent_loop.agent_loop:register",
    "REWARD_MANAGER": "verl.experimental.reward_loop.reward_manager.registry:REWARD_MANAGER",
    "RewardManagerBase": "verl.experimental.reward_loop.reward_manager.base:RewardManagerBase",
    "register_reward_manager": "verl.experimental.reward_loop.reward_manager.registry:register",
    "ModelMergerConfig": "verl.model_merger.base_model_merger:ModelMergerConfig",
    "FSDPModelMerger": "verl.model_merger.fsdp_model_merger:FSDPModelMerger",
    "assign_non_tensor": "verl.utils.tensordict_utils:assign_non_tensor",
    "PlatformBase": "verl.plugin.platform.platform_base:PlatformBase",
    "PlatformRegistry": "verl.plugin.platform.platform_manager:PlatformRegistry",
}
"""`from workflow_r1.verl_plugin.upstream import NAME` imports it: one at a time, as verl's modules import ours."""

MEMBERS = {
    "AgentLoopBase": "_cap_text_prompt_length",
    "AgentLoopManagerTQ": "_init_agent_loop_workers",
    "AgentLoopWorkerTQ": "_run_agent_loop _run_prompt _agent_loop_postprocess",
    "FSDPModelMerger": (
        "merge_and_save save_lora_adapter get_transformers_auto_model_class "
        "_load_and_merge_state_dicts _merge_by_placement _load_lora_train_meta"
    ),
    "PPOTrainerSync": (
        "fit step on_init_end on_step_begin on_step_end _validate _save_checkpoint _compute_old_log_prob "
        "_compute_advantage _build_replay_buffer"
    ),
    "ReplayBuffer": (
        "sample _select_prompt_uids _evict_terminal_groups _dapo_filtered_keys "
        "_wait_for_next_poll _validate_mode_config"
    ),
    "RewardManagerBase": "run_single",
}
"""What we override or call of those classes."""

PATCHED = {
    "compute_rollout_correction_weights": "verl.trainer.ppo.rollout_corr_helper",
    "compute_rollout_rejection_mask": "verl.trainer.ppo.rollout_corr_helper",
    "compute_rollout_correction_and_add_to_batch": "verl.trainer.ppo.v1.trainer_base",
    "compute_advantage_for_multi_trajectories": "verl.trainer.ppo.v1.trainer_base",
    "reduce_metrics": "verl.trainer.ppo.v1.trainer_base",
    "_acquire_server": "verl.workers.rollout.llm_server:LLMServerClient",
    "initialize_global_process_group_ray": "verl.utils.distributed",  # on a CPU alone, as the next
    "CPUOffloadPolicy": "verl.workers.engine.fsdp.transformer_impl",
}
"""The names that no registry reaches, each replaced by one function of ours that has that name."""

LEFT_OUT: dict[str, str] = {}
"""Our modules that this environment cannot import, and why: `import_when_imported` fills it."""


def __getattr__(name: str) -> Any:
    if name not in IMPORTED:
        raise AttributeError(f"{__name__} has no {name!r}")
    try:
        return resolve_name(IMPORTED[name])
    except AttributeError as error:
        raise ImportError(f"this release of verl has no {IMPORTED[name]}") from error


def replaces_verls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put `function(wrapped, instance, args, kwargs)` in the place of verl's of the same name.

    Raises:
        ImportError: this release of verl has none.
    """
    name = function.__name__
    try:
        return patch_function_wrapper(resolve_name(PATCHED[name]), name)(function)
    except AttributeError as error:
        raise ImportError(f"this release of verl has no {PATCHED[name]}:{name}") from error


def import_when_imported(trigger: str, module: str) -> None:
    """Import our module of the plug-in as soon as verl's module `trigger` is imported.

    One that needs what is not installed, or what this release of verl does not have, is left out, so that whoever
    wants the loss alone is not kept from training; `workflow-r1 train` says what is not registered, and why.
    """

    def attempt(_: Any) -> None:
        try:
            importlib.import_module(f"workflow_r1.verl_plugin.{module}")
        except ImportError as error:
            LEFT_OUT[module] = str(error)

    register_post_import_hook(attempt, trigger)
