"""A credit that a run would not give, or a setting of it that nothing reads, is a sentence before the run."""

import pytest

from workflow_r1.runs.preflight import check_credit
from workflow_r1.runs.recipe import EMBEDDED, LaunchError, compose_recipe, with_our_settings


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["gsspo_credit=gae"], "algorithm.gsspo_credit=gae is not known: take outcome, turn_rewards, "),
        (["gsspo_turn_rewards=True"], "algorithm.gsspo_turn_rewards is not known: take gsspo_credit, "),
        (["gsspo_credit=discounted", "gsspo_discount=2"], "algorithm.gsspo_discount=2 has to be a number from 0 to 1"),
        (["gsspo_discount=0.9"], "algorithm.gsspo_discount is not read with algorithm.gsspo_credit=outcome: leave it"),
        (["gsspo_credit=discounted", "gsspo_credit_weight=2"], "or take zero_sum or anchors."),
        (["adv_estimator=grpo", "gsspo_credit=anchors"], "read by algorithm.adv_estimator=gsspo alone: leave it out."),
    ],
)
def test_a_credit_that_would_not_be_given_is_refused(overrides, sentence):
    config = compose_recipe(EMBEDDED, with_our_settings([f"algorithm.{override}" for override in overrides]))
    with pytest.raises(LaunchError) as error:
        check_credit(config)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("overrides", [[], ["credit=outcome"], ["credit=anchors", "discount=0.9", "credit_weight=0"]])
def test_a_credit_that_is_there_passes(overrides):
    overrides = with_our_settings([f"algorithm.gsspo_{override}" for override in overrides])
    check_credit(compose_recipe(EMBEDDED, overrides))
