"""verl's settings that verl's V1 trainer with FSDP does not read: changed, they would change nothing, in silence."""

import json

from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.recipe import LaunchError

_ACTOR, _MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"

# setting -> its value in verl 0.9.1's tree, and what is read instead
UNREAD = {
    "trainer.balance_batch": (True, "batches are always balanced"),
    "trainer.default_hdfs_dir": (None, "copy trainer.default_local_dir yourself"),
    "trainer.del_local_ckpt_after_load": (False, "a checkpoint on this machine stays"),
    "trainer.esi_redundant_time": (0, "trainer.save_freq alone says when a checkpoint is due"),
    "trainer.ray_wait_register_center_timeout": (300, "there is no such timeout any more"),
    f"{_ACTOR}.grad_clip": (1.0, f"set {_ACTOR}.optim.clip_grad"),
    f"{_ACTOR}.use_torch_compile": (True, f"set {_ACTOR}.fsdp_config.use_torch_compile"),
    f"{_ACTOR}.fsdp_config.dtype": ("bfloat16", f"set {_ACTOR}.fsdp_config.mixed_precision.param_dtype"),
    f"{_ACTOR}.use_prefix_grouper": (False, "sequences are packed with actor_rollout_ref.model.use_remove_padding"),
    f"{_ACTOR}.freeze_vision_tower": (False, "questions and policies are text"),
    f"{_ACTOR}.ppo_micro_batch_size": (None, f"set {_ACTOR}.ppo_micro_batch_size_per_gpu"),
    f"{_MODEL}.lora.rank": (0, f"it is Megatron's: set {_MODEL}.lora_rank"),
    f"{_MODEL}.lora.adapter_path": (None, f"it is Megatron's: set {_MODEL}.lora_adapter_path"),
    f"{_MODEL}.tiled_mlp.enabled": (False, f"save memory with {_MODEL}.enable_gradient_checkpointing"),
}


def check_unread(config: DictConfig) -> None:
    """No setting is changed that nothing reads."""
    for name, (value, instead) in UNREAD.items():
        if OmegaConf.select(config, name) != value:
            raise LaunchError(
                f"{name} does nothing in verl 0.9.1 with FSDP: leave it at {json.dumps(value)}; {instead}."
            )
