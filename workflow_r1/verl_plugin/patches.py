"""The places in verl 0.9.1 that the gsspo estimator needs and no registry reaches: one function each, named for what it
replaces."""

from typing import Any

from workflow_r1.verl_plugin.upstream import replaces_verls


@replaces_verls
def compute_advantage_for_multi_trajectories(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """verl 0.9.1 takes one output a rollout out of several for its own grpo alone (trainer/ppo/v1/utils.py:174).

    An estimator of the registry gets them all, and cannot tell them from further rollouts of the group.

    Raises:
        ValueError: gsspo would.
    """
    several = any(key.rsplit("_", 1)[1] != "0" for key in kwargs["batch_keys"])  # `{uid}_{rollout}_{output}`
    if several and kwargs["adv_estimator"] == "gsspo":
        raise ValueError(
            "An agent loop returned several outputs for one rollout, and algorithm.adv_estimator=gsspo would count "
            "each as a rollout of its own: return one output, or set algorithm.adv_estimator=grpo."
        )
    return wrapped(*args, **kwargs)
