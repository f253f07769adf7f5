"""The places in verl 0.9.1 that the gsspo estimator needs and no registry reaches: one function each, named for what it
replaces."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import transfer_queue as tq

from workflow_r1.trajectory import Trajectory
from workflow_r1.verl_plugin.gsspo_loss import compute_gsspo_advantage
from workflow_r1.verl_plugin.outputs import Rollouts
from workflow_r1.verl_plugin.upstream import replaces_verls

TURN_MASK = "turn_mask"
"""In a step's batch: the response mask before a rejection, whose runs of ones are the turns."""


@replaces_verls
def compute_rollout_correction_and_add_to_batch(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """verl 0.9.1 puts the mask that a rejection leaves in the place of the one that says what the turns are
    (trainer/ppo/rollout_corr_helper.py:1061)."""
    data = args[0]
    data.batch[TURN_MASK] = data.batch["response_mask"]
    return wrapped(*args, **kwargs)


@replaces_verls
def compute_advantage_for_multi_trajectories(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """verl 0.9.1 hands an estimator of the registry rewards, mask and uid alone (trainer/ppo/ray_trainer.py:251), and
    treats several outputs of a rollout as one for its own grpo alone (trainer/ppo/v1/utils.py:174)."""
    if kwargs["adv_estimator"] != "gsspo":
        return wrapped(*args, **kwargs)
    data, keys, config = args[0], kwargs["batch_keys"], kwargs["config"]
    rollouts, rewards = Rollouts.of(keys), data.batch["token_level_rewards"]
    earned = torch.zeros_like(rewards)
    earned[rollouts.last] = rewards[rollouts.last]  # the other outputs have copies of the same reward
    turn_mask = data.batch.get(TURN_MASK, None)
    advantages, _ = compute_gsspo_advantage(
        rollouts.join(earned),
        rollouts.join(data.batch["response_mask"]),
        data.non_tensor_batch["uid"][rollouts.last],
        config=config,
        turn_mask=None if turn_mask is None else rollouts.join(turn_mask),
        states=_states(keys, rollouts) if config.get("gsspo_credit") == "anchors" else None,
    )
    data.batch["advantages"] = data.batch["returns"] = rollouts.split(advantages, rewards)
    return data


def _states(keys: Sequence[str], rollouts: Rollouts) -> list[list[Hashable]] | None:
    """What the turns of the rollouts behind the transfer queue's `keys` started from; None where an agent loop has not
    recorded it, as none does that returns several outputs."""
    fields = tq.kv_batch_get(keys=list(keys), partition_id="train", select_fields=["extra_fields"])
    records = [extra.get("trajectory") for extra in fields.pop("extra_fields").tolist()]
    if None in records or not rollouts.single:
        return None
    trajectories = [Trajectory.model_validate(record) for record in records]
    return [
        [state for turn, state in zip(one.turns, one.states, strict=True) if turn.tokens[0] < turn.tokens[1]]
        for one in trajectories
    ]
