"""Whether verl's registries hold everything that this plug-in registers, and what a configuration names."""

from collections.abc import Mapping

from workflow_r1.data.verl_rows import AGENT_LOOP
from workflow_r1.verl_plugin.gsspo_loss import GSsPOLossConfig
from workflow_r1.verl_plugin.upstream import (
    ADV_ESTIMATOR_REGISTRY,
    AGENT_LOOP_REGISTRY,
    POLICY_LOSS_REGISTRY,
    REWARD_MANAGER,
    TRAINER_REGISTRY,
)

LOSS_MODE = "actor_rollout_ref.actor.policy_loss.loss_mode"


def missing_registrations() -> list[str]:
    """What should be in verl's registries and is not."""
    expected = {
        "policy loss gsspo": "gsspo" in POLICY_LOSS_REGISTRY,
        "policy loss gsspo_soft": "gsspo_soft" in POLICY_LOSS_REGISTRY,
        "advantage estimator gsspo": "gsspo" in ADV_ESTIMATOR_REGISTRY,
        "trainer workflow_r1": "workflow_r1" in TRAINER_REGISTRY,
        f"agent loop {AGENT_LOOP}": AGENT_LOOP in AGENT_LOOP_REGISTRY,
        "reward manager workflow_r1": "workflow_r1" in REWARD_MANAGER,
    }
    return [name for name, present in expected.items() if not present]


def unknown_names(named: Mapping[str, str]) -> list[str]:
    """What `named`, names by setting, has that verl would look for in vain: as late as in the first update."""
    registries = {
        LOSS_MODE: POLICY_LOSS_REGISTRY,
        "algorithm.adv_estimator": ADV_ESTIMATOR_REGISTRY,
        "reward.reward_manager.name": REWARD_MANAGER,
    }
    try:
        GSsPOLossConfig(loss_mode=named.get(LOSS_MODE, "gsspo"))  # which registers a loss of one's own
    except ImportError as error:
        return [f"{LOSS_MODE}: the loss {named[LOSS_MODE]} {error}"]
    return [
        f"{setting}={name} is unknown to verl: take one of {', '.join(sorted(registries[setting]))}."
        for setting, name in named.items()
        if name not in registries[setting]
    ]
