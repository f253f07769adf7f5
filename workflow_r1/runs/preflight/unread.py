"""verl's settings that verl's V1 trainer with FSDP does not read: changed, they would change nothing, in silence."""

import json
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.recipe import LaunchError

_ACTOR, _MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
_REF, _ROLLOUT = "actor_rollout_ref.ref", "actor_rollout_ref.rollout"

# Refused, because the run would lack what was asked for: setting -> its value in verl 0.9.1's tree, what to do instead
UNREAD = {
    "trainer.default_hdfs_dir": (None, "copy trainer.default_local_dir yourself"),
    "trainer.del_local_ckpt_after_load": (False, "a checkpoint on this machine stays"),
    "trainer.esi_redundant_time": (0, "trainer.save_freq alone says when a checkpoint is due"),
    f"{_ACTOR}.grad_clip": (1.0, f"set {_ACTOR}.optim.clip_grad"),
    f"{_ACTOR}.optim.total_training_steps": (-1, "verl sets it to the run's: set trainer.total_training_steps"),
    f"{_ACTOR}.fsdp_config.dtype": ("bfloat16", f"set {_ACTOR}.fsdp_config.mixed_precision.param_dtype"),
    f"{_ACTOR}.use_prefix_grouper": (False, "sequences are packed with actor_rollout_ref.model.use_remove_padding"),
    f"{_ACTOR}.freeze_vision_tower": (False, "questions and policies are text"),
    f"{_ACTOR}.ppo_micro_batch_size": (None, f"set {_ACTOR}.ppo_micro_batch_size_per_gpu"),
    f"{_REF}.log_prob_micro_batch_size": (None, f"set {_REF}.log_prob_micro_batch_size_per_gpu"),
    f"{_ROLLOUT}.log_prob_micro_batch_size": (None, f"set {_ROLLOUT}.log_prob_micro_batch_size_per_gpu"),
    f"{_MODEL}.lora.rank": (0, f"it is Megatron's: set {_MODEL}.lora_rank"),
    f"{_MODEL}.lora.adapter_path": (None, f"it is Megatron's: set {_MODEL}.lora_adapter_path"),
    f"{_MODEL}.tiled_mlp.enabled": (False, f"save memory with {_MODEL}.enable_gradient_checkpointing"),
}

# Noted, because the run is what was asked for either way: setting -> its value in verl's tree, why it does nothing
NOTED = {
    "trainer.balance_batch": (True, "batches are always balanced"),
    "trainer.ray_wait_register_center_timeout": (300, "there is no such timeout any more"),
    "trainer.v1.sampler.max_off_policy_threshold": (8, "every rollout is of its own step's policy"),
    "trainer.v1.sampler.max_off_policy_strategy": ("drop", "every rollout is of its own step's policy"),
    "actor_rollout_ref.nccl_timeout": (600, "torch's own timeout holds"),
    f"{_ACTOR}.use_torch_compile": (True, f"{_ACTOR}.fsdp_config.use_torch_compile is read instead"),
    f"{_ACTOR}.calculate_sum_pi_squared": (False, "verl's V1 trainer has no advantage that reads it"),
    f"{_ROLLOUT}.multi_stage_wake_up": (False, "it is SGLang's"),
    f"{_ROLLOUT}.multi_turn.tokenization_sanity_check_mode": ("strict", "what was sampled is never tokenised again"),
    "data.return_raw_chat": (True, "a row's messages are always kept"),
    "data.return_full_prompt": (False, "prompts are in trainer.v1.sampler.sampler_kwargs.trajectory_dir"),
    "data.return_raw_input_ids": (False, "a prompt is tokenised where it is rolled out"),
    "algorithm.rollout_correction.loss_type": (
        "ppo_clip",
        "the policy loss is the one of loss_mode in bypass mode too",
    ),
}


def _computes_returns(config: DictConfig) -> bool:
    return config.algorithm.adv_estimator != "gsspo"


def _has_kl_loss(config: DictConfig) -> bool:
    return config.actor_rollout_ref.actor.use_kl_loss


def _has_kl_reward(config: DictConfig) -> bool:
    return config.algorithm.use_kl_in_reward


def _has_weights(config: DictConfig) -> bool:
    return config.algorithm.rollout_correction.rollout_is is not None


def _has_other_loss(config: DictConfig) -> bool:
    return config.actor_rollout_ref.actor.policy_loss.loss_mode != "gsspo"


# Noted too, where the setting that has them read is not on: setting -> as above, and whether they are read
NOTED_WHERE: dict[str, tuple[Any, str, Callable[[DictConfig], bool]]] = {
    "algorithm.gamma": (1.0, "the gsspo advantage does not read it", _computes_returns),
    "algorithm.lam": (1.0, "the gsspo advantage does not read it", _computes_returns),
    f"{_ACTOR}.kl_loss_coef": (0.001, f"there is no KL loss without {_ACTOR}.use_kl_loss=True", _has_kl_loss),
    "algorithm.kl_ctrl.kl_coef": (
        0.001,
        "there is no KL term in the reward without algorithm.use_kl_in_reward=True",
        _has_kl_reward,
    ),
    "algorithm.rollout_correction.rollout_is_threshold": (
        2.0,
        "there are no importance weights without algorithm.rollout_correction.rollout_is",
        _has_weights,
    ),
    f"{_ACTOR}.tau_pos": (1.0, "it is that of the losses gsspo_soft and sapo", _has_other_loss),
    f"{_ACTOR}.tau_neg": (1.05, "it is that of the losses gsspo_soft and sapo", _has_other_loss),
    f"{_ACTOR}.policy_loss.clip_cov_ratio": (0.0002, "it is the clip_cov loss's", _has_other_loss),
    f"{_ACTOR}.policy_loss.kl_cov_ratio": (0.0002, "it is the kl_cov loss's", _has_other_loss),
    f"{_ACTOR}.policy_loss.ppo_kl_coef": (0.1, "it is the kl_cov loss's", _has_other_loss),
}


def check_unread(config: DictConfig) -> None:
    """Nothing is asked for with a setting that nothing reads."""
    for name, (value, instead) in UNREAD.items():
        if OmegaConf.select(config, name) != value:
            raise LaunchError(
                f"{name} does nothing in verl 0.9.1 with FSDP: leave it at {json.dumps(value)}; {instead}."
            )


def unread_notes(config: DictConfig) -> list[str]:
    """A sentence for every setting that is changed and makes no difference."""
    unread = dict(NOTED)
    unread |= {name: (value, why) for name, (value, why, is_read) in NOTED_WHERE.items() if not is_read(config)}
    return [
        f"Note: {name}={OmegaConf.select(config, name)} has no effect here: {why}."
        for name, (value, why) in unread.items()
        if OmegaConf.select(config, name) != value
    ]
