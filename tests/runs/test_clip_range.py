"""A clip range at which GSsPO clips nothing is named before a run."""

import pytest

from workflow_r1.runs.preflight import clip_range_warning
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, compose_recipe

ACTOR = "actor_rollout_ref.actor"


@pytest.mark.parametrize("recipe", [EMBEDDED, REFERENCE])
def test_the_recipes_clip_turns_by_a_range_for_turns(recipe):
    assert clip_range_warning(compose_recipe(recipe, [])) is None


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["clip_ratio_low=0.2"], "actor_rollout_ref.actor.clip_ratio_low=0.2 suits tokens"),
        (
            ["clip_ratio_low=0.2", "clip_ratio_high=0.28"],
            "clip_ratio_high=0.28 and actor_rollout_ref",
        ),
        (["clip_ratio_high=null"], "actor_rollout_ref.actor.clip_ratio=0.2"),  # verl's default then holds
        (["clip_ratio_low=0.05", "clip_ratio_high=0.051"], "clip_ratio_high=0.051 suits"),
    ],
)
def test_a_range_for_tokens_is_named(overrides, named):
    config = compose_recipe(EMBEDDED, [f"{ACTOR}.{override}" for override in overrides])
    warning = clip_range_warning(config)
    assert warning is not None
    assert named in warning


def test_other_losses_have_other_ranges():
    overrides = [f"{ACTOR}.policy_loss.loss_mode=vanilla", f"{ACTOR}.clip_ratio_low=0.2"]
    assert clip_range_warning(compose_recipe(EMBEDDED, overrides)) is None
