"""GSsPO in verl's registries: the policy losses `gsspo` and `gsspo_soft` and the advantage estimator `gsspo`.

    actor_rollout_ref.actor.policy_loss.loss_mode=gsspo           # or gsspo_soft, with a soft gate in place of the clip
    algorithm.adv_estimator=gsspo

Importing this module registers them. What they compute is in `workflow_r1.gsspo` and `workflow_r1.advantage`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from workflow_r1.advantage import group_relative_advantages
from workflow_r1.credit import Credit
from workflow_r1.gsspo import GSsPOLoss, check_weighting, gsspo_loss, soft_gsspo_loss
from workflow_r1.system.loading import load_object
from workflow_r1.turn_metrics import turn_sums
from workflow_r1.verl_plugin.upstream import ActorConfig, PolicyLossConfig, register_adv_est, register_policy_loss

TURN_SUMS = "actor/turn_sums/"
"""What the names of the sums begin with among the metrics of an update."""

SHARE = "share"
"""The sum that is one over all micro-batches and ranks of a mini-batch."""


@dataclass
class GSsPOLossConfig(PolicyLossConfig):
    """verl's policy-loss configuration and GSsPO's own. To select it, set both of

        actor_rollout_ref.actor.policy_loss._target_=workflow_r1.verl_plugin.gsspo_loss.GSsPOLossConfig
        +actor_rollout_ref.actor.policy_loss.subsequence_weighting=token

    With verl's own `PolicyLossConfig` the defaults hold.

    Attributes:
        loss_mode: a loss of verl's registry, or one's own as `module:function` or `path/to/file.py:function`: what
            `register_policy_loss` takes.
        subsequence_weighting: what the sub-sequences weigh inside a response: `uniform`, all the same, or `token`,
            by their lengths.
        turn_sums: report the sums of `workflow_r1.turn_metrics`, of which `workflow_r1.verl_plugin.measuring` makes
            metrics by turn number and length. Only verl's V1 trainers have them; others log the sums as they are.
    """

    loss_mode: str = "gsspo"
    subsequence_weighting: str = "uniform"
    turn_sums: bool = False

    def __post_init__(self) -> None:
        check_weighting(self.subsequence_weighting)
        if ":" in self.loss_mode:  # verl looks it up by this name, in the process that has made this
            loss = load_object(self.loss_mode)
            if not callable(loss):
                raise ImportError("is no function.")
            register_policy_loss(self.loss_mode)(loss)


@register_policy_loss("gsspo")
def compute_policy_loss_gsspo(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: DictConfig | ActorConfig | None = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The GSsPO loss of one micro-batch, as verl's `ppo_loss` asks for it.

    Args:
        old_log_prob, log_prob, advantages, response_mask, rollout_is_weights: (B, T).
        loss_agg_mode: not used: GSsPO has an aggregation of its own. The entropy and KL terms go on using it.
        config: its clip range, `clip_ratio_c`, `policy_loss` and `global_batch_info` are read.

    Returns:
        The loss, scaled so that its gradients, summed over micro-batches and averaged over data-parallel ranks, are
        those of the mean over the global mini-batch; and the metrics.
    """
    config = _needed(config)
    output = gsspo_loss(
        log_prob,
        old_log_prob,
        advantages,
        response_mask,
        clip_low=config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low,
        clip_high=config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high,
        clip_dual=config.clip_ratio_c,
        rollout_is_weights=rollout_is_weights,
        **_options(config),
    )
    return output.loss, _metrics(output, config)


@register_policy_loss("gsspo_soft")
def compute_policy_loss_gsspo_soft(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: DictConfig | ActorConfig | None = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """GSsPO with SAPO's soft gate, whose temperatures are verl's `tau_pos` and `tau_neg`; else as the gsspo loss."""
    config = _needed(config)
    output = soft_gsspo_loss(
        log_prob,
        old_log_prob,
        advantages,
        response_mask,
        tau_positive=config.tau_pos,
        tau_negative=config.tau_neg,
        rollout_is_weights=rollout_is_weights,
        **_options(config),
    )
    return output.loss, _metrics(output, config)


def _needed(config: DictConfig | ActorConfig | None) -> Any:
    if config is None:
        raise ValueError("The gsspo policy loss needs the actor's configuration: pass config=.")
    return config


def _options(config: Any) -> dict[str, Any]:
    return {
        "weighting": config.policy_loss.get("subsequence_weighting", "uniform"),
        "num_responses": _responses_per_rank(config.global_batch_info),
    }


def _responses_per_rank(global_batch_info: dict[str, Any]) -> float | None:
    """What a rank's summed loss is divided by, verl's convention (`agg_loss`): global batch size over dp_size."""
    dp_size, global_batch_size = global_batch_info.get("dp_size", 1), global_batch_info.get("global_batch_size")
    if global_batch_size is not None:
        return global_batch_size / dp_size
    if dp_size > 1:
        raise ValueError("The gsspo policy loss needs global_batch_size in config.global_batch_info when dp_size > 1.")
    return None


def _metrics(output: GSsPOLoss, config: Any) -> dict[str, float]:
    """verl averages these over micro-batches and ranks, then over mini-batches, or takes the maximum if named so."""
    runs, num_subsequences = output.subsequences, len(output.ratio)
    if num_subsequences == 0:  # verl wants the same keys from every micro-batch, also from one with nothing to train on
        clipped_low = clipped_high = clipped_dual = ratio_std = approx_kl = 0.0
        ratio_mean = ratio_max = 1.0
    else:
        clipped_low, clipped_high, clipped_dual, ratio_mean, ratio_std, ratio_max, approx_kl = torch.stack(
            [
                output.clipped_low.to(output.ratio).mean(),
                output.clipped_high.to(output.ratio).mean(),
                output.clipped_dual.to(output.ratio).mean(),
                output.ratio.mean(),
                output.ratio.std(correction=0),
                output.ratio.max(),
                output.approx_kl,
            ]
        ).tolist()  # one copy from the device for all
    return {
        "actor/pg_clipfrac": clipped_low + clipped_high,
        "actor/pg_clipfrac_low": clipped_low,
        "actor/pg_clipfrac_high": clipped_high,
        "actor/pg_clipfrac_lower": clipped_dual,  # verl's name for the dual clip's
        "actor/ratio_mean": ratio_mean,
        "actor/ratio_std": ratio_std,
        "actor/ratio_max": ratio_max,
        "actor/subsequences_per_response": num_subsequences / max(runs.num_responses, 1),
        "actor/tokens_per_subsequence": len(runs.of_token) / max(num_subsequences, 1),
        "actor/ppo_kl": approx_kl,
        **(_turn_sums(output, config.global_batch_info) if config.policy_loss.get("turn_sums", False) else {}),
    }


def _turn_sums(output: GSsPOLoss, batch: dict[str, Any]) -> dict[str, float]:
    deviation = output.ratio.double() - 1  # a variance from sums of squares is a difference of close numbers
    values = {
        "tokens": output.subsequences.lengths,
        "advantage": output.advantage,
        "clip_fraction": output.clipped_low | output.clipped_high,
        "ratio_deviation": deviation,
        "ratio_deviation_square": deviation.square(),
    }
    share = len(output.subsequences.mask) / (batch.get("global_batch_size") or 1)
    sums = {SHARE: share, **turn_sums(output.subsequences, values)}
    return {TURN_SUMS + name: value for name, value in sums.items()}


@register_adv_est("gsspo")
def compute_gsspo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: Any = None,
    turn_mask: torch.Tensor | None = None,
    states: Sequence[Sequence[Hashable]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Group-relative advantages, see `workflow_r1.advantage.group_relative_advantages`.

    Args:
        token_level_rewards, response_mask: (B, T).
        index: (B,) prompt ids, which make the groups.
        config: verl's algorithm configuration. Read are `norm_adv_by_std_in_grpo` (default True) and what `Credit.of`
            takes, as `+algorithm.gsspo_credit=discounted`.
        turn_mask, states: as there; from verl's V1 trainer alone (`workflow_r1.verl_plugin.patches`).

    Returns:
        The advantages, (B, T), as advantages and as returns.
    """
    options = {} if config is None else config
    advantages = group_relative_advantages(
        token_level_rewards,
        response_mask,
        index.tolist(),
        credit=Credit.of(options),
        turn_mask=turn_mask,
        states=states,
        normalise_by_std=options.get("norm_adv_by_std_in_grpo", True),
    )
    return advantages, advantages
