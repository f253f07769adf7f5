"""The trainer and the policy's update: what would end, shorten or weaken a run without a word."""

import importlib.util
import json
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.preflight.model import check_model
from workflow_r1.runs.preflight.rollouts import GSSPO_LOSSES
from workflow_r1.runs.recipe import LaunchError

_ACTOR, _MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
_MORE_THAN_A_PRODUCT = (
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
)  # lora_alpha/r · B·A
# What verl 0.9.1 compares a name with, some of it as late as in the first update.
_CHOICES = {
    "strategy": ("fsdp", "fsdp2"),
    "loss_agg_mode": (
        "token-mean",
        "token-sum",
        "seq-mean-token-sum",
        "seq-mean-token-mean",
        "seq-mean-token-sum-norm",
    ),
    "kl_loss_type": tuple(
        f"{name}{end}" for name in ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3") for end in ("", "+")
    ),
    "optim.lr_scheduler_type": ("constant", "cosine"),
}
_CONTENTS = ("model", "optimizer", "extra", "hf_model")


def check_training(config: DictConfig) -> None:
    """The sections `trainer`, `actor` and `model` ask for what verl's V1 trainer and its FSDP engine can do.

    Raises:
        LaunchError: with one sentence.
    """
    _check_choices(config)
    _check_trainer(config)
    _check_optimizer(config)
    _check_loss_settings(config)
    _check_critic(config)
    _check_checkpoints(config)
    _check_model(config)


def _check_choices(config: DictConfig) -> None:
    if config.get("model_engine", "dp") != "dp":
        raise LaunchError(
            f"model_engine={config.model_engine} cannot be mixed with the recipes, which are FSDP's: leave it out."
        )
    for name, choices in _CHOICES.items():
        value = OmegaConf.select(config.actor_rollout_ref.actor, name)
        if value not in choices:
            raise LaunchError(f"{_ACTOR}.{name}={value} is not supported: take {', '.join(choices)}.")


def _check_optimizer(config: DictConfig) -> None:
    optim = config.actor_rollout_ref.actor.optim
    settings = {"lr": optim.lr, "weight_decay": optim.weight_decay, **(optim.override_optimizer_config or {})}
    if "adam" in optim.optimizer.lower():
        settings = {"betas": tuple(optim.betas), **settings}
    try:
        optimizer = getattr(importlib.import_module(optim.optimizer_impl), optim.optimizer)
        if optim.optimizer_impl == "torch.optim":
            optimizer([torch.zeros(1)], **settings)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise LaunchError(f"{_ACTOR}.optim describes an optimizer that cannot be made: {error}.") from None


def _check_trainer(config: DictConfig) -> None:
    trainer = config.trainer
    if not trainer.use_v1:
        raise LaunchError("trainer.use_v1=False has no room for Workflow-R1's rollout and budget: leave it True.")
    if trainer.val_only and not trainer.val_before_train:
        raise LaunchError(
            "trainer.val_only=True is done before training, which trainer.val_before_train=False leaves out: "
            "set it to True."
        )
    if config.actor_rollout_ref.actor.strategy == "fsdp" and trainer.device == "cpu":
        raise LaunchError(f"{_ACTOR}.strategy=fsdp needs a GPU: take fsdp2.")
    if trainer.nnodes > 1 and trainer.device == "cpu":
        raise LaunchError(f"trainer.nnodes={trainer.nnodes} needs GPUs: a run without one is on one machine.")


def _check_loss_settings(config: DictConfig) -> None:
    actor = config.actor_rollout_ref.actor
    if actor.clip_ratio != 0.2 and None not in (actor.clip_ratio_low, actor.clip_ratio_high):
        raise LaunchError(
            f"{_ACTOR}.clip_ratio={actor.clip_ratio} is overruled by clip_ratio_low={actor.clip_ratio_low} and "
            f"clip_ratio_high={actor.clip_ratio_high} of the same section: set those."
        )
    follows = actor.use_kl_loss or actor.entropy_coeff
    if actor.policy_loss.loss_mode in GSSPO_LOSSES and actor.loss_agg_mode != "token-mean" and not follows:
        raise LaunchError(
            f"{_ACTOR}.loss_agg_mode={actor.loss_agg_mode} does nothing: gsspo weighs turns by "
            f"{_ACTOR}.policy_loss.subsequence_weighting, and there is no KL or entropy term that would follow it."
        )


def _check_critic(config: DictConfig) -> None:
    """A critic is there for the one advantage that reads its values, `gae`, and for no other."""
    enable, estimator = config.critic.enable, config.algorithm.adv_estimator
    if estimator == "gae":
        if enable is False:
            raise LaunchError("algorithm.adv_estimator=gae reads a critic's values: leave critic.enable null.")
        check_model(config.critic.model.path, "critic.model.path")
        return
    if enable:
        raise LaunchError(
            f"critic.enable=True trains a critic that algorithm.adv_estimator={estimator} does not read: leave it null."
        )
    if config.trainer.critic_warmup > 1:
        raise LaunchError(
            f"trainer.critic_warmup={config.trainer.critic_warmup} would leave the policy as it is in the steps "
            "before, and there is no critic to warm up: set it to 0."
        )


def _check_checkpoints(config: DictConfig) -> None:
    checkpoint = config.actor_rollout_ref.actor.checkpoint
    for name, needed in (("save_contents", {"model", "hf_model"}), ("load_contents", {"model"})):
        contents = set(checkpoint[name])
        if unknown := contents.difference(_CONTENTS):
            raise LaunchError(
                f"{_ACTOR}.checkpoint.{name} names {', '.join(sorted(unknown))}: take some of {', '.join(_CONTENTS)}."
            )
        if not contents & needed and not (name == "load_contents" and checkpoint.save_contents == ["hf_model"]):
            raise LaunchError(f"{_ACTOR}.checkpoint.{name} leaves the weights out: add model.")
    if checkpoint.async_save:
        raise LaunchError(
            f"{_ACTOR}.checkpoint.async_save=True is Megatron's, and with FSDP no run could be resumed: leave it False."
        )


def _check_model(config: DictConfig) -> None:
    model = config.actor_rollout_ref.model
    if model.use_liger and importlib.util.find_spec("liger_kernel") is None:
        raise LaunchError(f"{_MODEL}.use_liger=True needs liger-kernel: pip install liger-kernel, or leave it False.")
    ulysses = config.actor_rollout_ref.actor.ulysses_sequence_parallel_size
    if ulysses > 1 and importlib.util.find_spec("flash_attn") is None and config.trainer.device == "cuda":
        raise LaunchError(
            f"{_ACTOR}.ulysses_sequence_parallel_size={ulysses} needs flash-attn, which is not installed: install it "
            "(docs/training.md), or set it to 1 and raise ppo_max_token_len_per_gpu of the same section."
        )
    if model.lora_rank > 0 and "hf_model" in config.actor_rollout_ref.actor.checkpoint.save_contents:
        raise LaunchError(
            f"{_ACTOR}.checkpoint.save_contents names hf_model, and verl exports a model with {_MODEL}.lora_rank="
            f"{model.lora_rank} under names that nothing reads: leave it out, 'workflow-r1 eval' merges the adapter."
        )
    if model.lora_adapter_path is None:
        return
    if model.lora_rank <= 0:
        raise LaunchError(
            f"{_MODEL}.lora_adapter_path is read with {_MODEL}.lora_rank above 0 only: set it to the adapter's rank."
        )
    path = Path(model.lora_adapter_path).expanduser() / "adapter_config.json"
    try:
        adapter = json.loads(path.read_text())
    except (OSError, ValueError):
        raise LaunchError(f"{_MODEL}.lora_adapter_path names no adapter of PEFT: {path} cannot be read.") from None
    if unknown := [name for name in _MORE_THAN_A_PRODUCT if adapter.get(name)]:
        raise LaunchError(
            f"{path} sets {', '.join(unknown)}, of which verl's checkpoints keep nothing, so that they could not be "
            "merged: train a plain LoRA adapter."
        )
