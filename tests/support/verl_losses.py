"""Losses in verl's registry, called as verl's actor calls them."""

from pathlib import Path

import verl.trainer
from hydra import compose, initialize_config_dir
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import ActorConfig


def actor_config(global_batch_info=None, **overrides):
    options = {"strategy": "fsdp", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1} | overrides
    config = ActorConfig(**options)
    config.global_batch_info.update(global_batch_info or {})
    return config


def compose_config(*overrides):
    with initialize_config_dir(str(Path(verl.trainer.__file__).parent / "config"), version_base=None):
        return compose("ppo_trainer", ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1", *overrides])


def run_loss(name, batch, config, loss_agg_mode="seq-mean-token-mean", **kwargs):
    """Loss, gradient and metrics of a loss in verl's registry."""
    log_prob, old, advantages, mask = batch
    log_prob = log_prob.detach().clone().requires_grad_()
    loss, metrics = get_policy_loss_fn(name)(
        old_log_prob=old,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        **kwargs,
    )
    loss.backward()
    return loss.detach(), log_prob.grad, metrics
