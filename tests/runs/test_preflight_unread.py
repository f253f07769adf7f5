"""What verl does not read is refused by name where a run would lack it, and noted where it makes no difference."""

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from workflow_r1.runs.preflight import check_unread, unread_notes
from workflow_r1.runs.preflight.unread import NOTED, NOTED_WHERE, UNREAD
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, LaunchError

ACTOR = "actor_rollout_ref.actor"


def another(value):
    return {bool: not value, type(None): "x"}.get(type(value), 3)


@pytest.fixture
def changed(composed):
    """The embedded recipe with settings changed, for one test: it is shared, as copies of it take long."""
    config, before = composed[EMBEDDED], {}

    def change(settings):
        for name, value in settings.items():
            before.setdefault(name, OmegaConf.select(config, name))
            OmegaConf.update(config, name, value)
        return config

    yield change
    change(dict(before))


@pytest.mark.parametrize("name", [EMBEDDED, REFERENCE])
def test_of_the_recipes_everything_is_read(composed, name):
    check_unread(composed[name])
    assert unread_notes(composed[name]) == []


@pytest.mark.parametrize("name", UNREAD)
def test_a_setting_that_the_run_would_lack_is_refused_by_name(changed, name):
    value, instead = UNREAD[name]
    with pytest.raises(LaunchError) as error:
        check_unread(changed({name: another(value)}))
    assert str(error.value) == (
        f"{name} does nothing in verl 0.9.1 with FSDP: leave it at {json.dumps(value)}; {instead}."
    )


@pytest.mark.parametrize("name", [*NOTED, *NOTED_WHERE])
def test_a_setting_that_makes_no_difference_is_noted_by_name(changed, name):
    value, why = (NOTED.get(name) or NOTED_WHERE[name])[:2]
    config = changed({name: another(value)})
    check_unread(config)
    assert unread_notes(config) == [f"Note: {name}={another(value)} has no effect here: {why}."]


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm.adv_estimator": "gae", "algorithm.gamma": 0.99, "algorithm.lam": 0.95},
        {f"{ACTOR}.use_kl_loss": True, f"{ACTOR}.kl_loss_coef": 0.01},
        {"algorithm.use_kl_in_reward": True, "algorithm.kl_ctrl.kl_coef": 0.01},
        {"algorithm.rollout_correction.rollout_is": "token", "algorithm.rollout_correction.rollout_is_threshold": 5.0},
        {f"{ACTOR}.policy_loss.loss_mode": "sapo", f"{ACTOR}.tau_pos": 2.0, f"{ACTOR}.tau_neg": 2.0},
        {f"{ACTOR}.policy_loss.loss_mode": "clip_cov", f"{ACTOR}.policy_loss.clip_cov_ratio": 0.1},
    ],
)
def test_what_another_setting_has_read_is_not_noted(changed, settings):
    assert unread_notes(changed(settings)) == []


def test_what_nothing_reads_is_still_in_verls_tree_with_that_value():
    """When this fails, verl has changed a setting: see whether it is read now."""
    from verl import trainer

    with initialize_config_dir(f"{trainer.__path__[0]}/config", version_base=None):
        tree = compose("ppo_trainer")
    table = {**UNREAD, **NOTED, **NOTED_WHERE}
    assert {name: OmegaConf.select(tree, name, throw_on_missing=True) for name in table} == {
        name: entry[0] for name, entry in table.items()
    }
