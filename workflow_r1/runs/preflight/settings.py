"""The settings: none that verl would ignore, replace or print a key from."""

from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.recipe import LaunchError
from workflow_r1.services.settings import MAIN, SEARCH, key_variable

WIDE = 0.05  # of a clip range: the mean log-ratio over a turn's tokens stays far below


def check_keys(config: DictConfig) -> None:
    """No key stands in the configuration: verl prints it to the log and hands it to every tracker."""
    operators = config.workflow_r1.operators
    endpoints = operators.get("endpoints")
    holders = {MAIN: operators, **(endpoints if OmegaConf.is_dict(endpoints) else {}), SEARCH: operators.get("search")}
    for name, fields in holders.items():
        if OmegaConf.is_dict(fields) and fields.get("api_key") is not None:
            variable = key_variable(name)
            raise LaunchError(
                f"The configuration holds a key for {name!r}, and verl prints its configuration: take api_key out "
                f"of workflow_r1.operators and set {variable} in the environment."
            )


def clip_range_warning(config: DictConfig) -> str | None:
    """One sentence where GSsPO's clip range is no trust region, else None."""
    actor = config.actor_rollout_ref.actor
    in_force = {"clip_ratio" if actor[name] is None else name for name in ("clip_ratio_low", "clip_ratio_high")}
    wide = [f"actor_rollout_ref.actor.{name}={actor[name]:g}" for name in sorted(in_force) if actor[name] > WIDE]
    if actor.policy_loss.loss_mode != "gsspo" or not wide:
        return None
    return (
        f"Warning: {' and '.join(wide)} suits tokens: a turn's ratio hardly ever gets that far, so nothing is clipped, "
        "and training with several updates a batch can collapse. The recipes take 0.003 and 0.004 (docs/gsspo.md)."
    )
