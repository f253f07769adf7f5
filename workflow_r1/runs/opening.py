"""How a run opens: the recipe that fits the machine, composed with what the command line says."""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs import preflight
from workflow_r1.runs.gpus import chosen_hardware
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, compose_recipe, with_our_settings, with_quoted_paths

_KEY_OVERRIDE = re.compile(r"\+{0,2}workflow_r1\.operators\.api_key=(?P<key>.*)", re.DOTALL)
_ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"


@dataclass(frozen=True)
class Opening:
    """A recipe, as it is composed of a command line on this machine.

    Attributes:
        notes: a sentence each on what was chosen and is not as the user may think.
    """

    recipe: str
    overrides: list[str]
    config: DictConfig
    notes: list[str]


def open_recipe(overrides: Sequence[str], recipe: str | None = None) -> Opening:
    """Choose what is left open: the recipe, the hardware and the attention.

    Args:
        overrides: Hydra overrides.
        recipe: a configuration's name; by default the reference recipe where torch sees a GPU, else the embedded one.

    Raises:
        LaunchError: an override or the machine does not fit.
    """
    notes = []
    if recipe is None:
        hardware = preflight.usable_hardware()
        recipe = REFERENCE if hardware.gpu else EMBEDDED
        notes += [hardware.note] if hardware.note else []
    taken = with_our_settings(with_quoted_paths(_take_key_out(overrides)))
    config = compose_recipe(recipe, taken)
    if chosen := chosen_hardware(config, taken, os.environ):
        taken = [f"hardware={chosen}", *taken]
        config = compose_recipe(recipe, taken)
    is_open = OmegaConf.select(config, _ATTENTION) is None
    if config.trainer.device == "cuda" and is_open and importlib.util.find_spec("flash_attn") is None:
        taken = [*taken, f"++{_ATTENTION}=sdpa"]
        config = compose_recipe(recipe, taken)
        notes.append(
            "flash-attn is not installed: torch's own attention is taken, whose time grows with the square of "
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu (docs/training.md says how to install it)."
        )
    return Opening(recipe, taken, config, notes)


def _take_key_out(overrides: Sequence[str]) -> list[str]:
    """Move an operator key from the overrides to the environment: verl prints its configuration, `ps` the overrides."""
    kept = []
    for override in overrides:
        if match := _KEY_OVERRIDE.fullmatch(override):
            os.environ["OPERATOR_API_KEY"] = match["key"]
        else:
            kept.append(override)
    return kept
