"""What configures GSsPO in verl: its own dataclass from verl's YAML, the clips, and what does not."""

import pytest
import torch
from hydra.errors import InstantiationException
from support.batches import random_batch, random_mask
from support.verl_losses import actor_config, compose_config, run_loss
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import PolicyLossConfig

from workflow_r1.verl_plugin.gsspo_loss import GSsPOLossConfig

CONFIG_TARGET = "workflow_r1.verl_plugin.gsspo_loss.GSsPOLossConfig"


@pytest.mark.parametrize("loss_agg_mode", ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_the_loss_does_not_depend_on_verls_loss_agg_mode(loss_agg_mode):
    batch = random_batch(random_mask(4, 10, seed=3), seed=0)
    torch.testing.assert_close(
        run_loss("gsspo", batch, actor_config(), loss_agg_mode)[:2], run_loss("gsspo", batch, actor_config())[:2]
    )


def test_low_and_high_clip_fall_back_to_the_common_one():
    batch = random_batch(random_mask(4, 10, seed=4), seed=0, spread=1.0)
    both = run_loss("gsspo", batch, actor_config(clip_ratio_low=0.05, clip_ratio_high=0.05))
    fallback = run_loss("gsspo", batch, actor_config(clip_ratio=0.05, clip_ratio_low=None, clip_ratio_high=None))
    other = run_loss("gsspo", batch, actor_config(clip_ratio=0.05))
    assert torch.equal(both[0], fallback[0])
    assert not torch.equal(both[0], other[0])


def test_verl_instantiates_the_configuration_from_its_own_yaml():
    policy_loss = "actor_rollout_ref.actor.policy_loss"
    overrides = [f"{policy_loss}.loss_mode=gsspo", f"{policy_loss}._target_={CONFIG_TARGET}"]
    config = compose_config(*overrides, f"+{policy_loss}.subsequence_weighting=token")
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert isinstance(actor.policy_loss, GSsPOLossConfig)
    assert actor.policy_loss.loss_mode == "gsspo"
    assert actor.policy_loss.subsequence_weighting == "token"

    default = omega_conf_to_dataclass(compose_config(*overrides).actor_rollout_ref.actor)
    plain = omega_conf_to_dataclass(compose_config(overrides[0]).actor_rollout_ref.actor)
    assert type(plain.policy_loss) is PolicyLossConfig
    batch = random_batch([[1, 1, 1, 0, 1, 0], [1, 0, 1, 1, 0, 1]], seed=0)
    token, uniform, unconfigured = (run_loss("gsspo", batch, config)[0] for config in (actor, default, plain))
    assert torch.equal(uniform, unconfigured)
    assert not torch.equal(uniform, token)


def test_a_bad_weighting_is_refused_in_one_sentence_that_names_the_choices():
    with pytest.raises(ValueError, match="weighted by one of uniform, token, not by 'longest'"):
        GSsPOLossConfig(subsequence_weighting="longest")
    policy_loss = "actor_rollout_ref.actor.policy_loss"
    config = compose_config(f"{policy_loss}._target_={CONFIG_TARGET}", f"+{policy_loss}.subsequence_weighting=longest")
    with pytest.raises(InstantiationException, match="weighted by one of uniform, token, not by 'longest'"):
        omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def test_what_is_missing_is_said_in_one_sentence():
    batch = random_batch([[1, 1]], seed=0)
    with pytest.raises(ValueError, match="needs global_batch_size"):
        run_loss("gsspo", batch, actor_config({"dp_size": 2}))
    with pytest.raises(ValueError, match="needs the actor's configuration"):
        run_loss("gsspo", batch, None)


def test_a_loss_of_ones_own_is_registered_where_its_configuration_is_made(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def zero(log_prob, **rest):\n    return 0 * log_prob.sum(), {'actor/mine': 1.0}\n"
    )
    policy_loss, name = "actor_rollout_ref.actor.policy_loss", f"{tmp_path}/mine.py:zero"
    config = compose_config(f"{policy_loss}._target_={CONFIG_TARGET}", f"{policy_loss}.loss_mode={name}")
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss, _, metrics = run_loss(actor.policy_loss.loss_mode, random_batch([[1, 1]], seed=0), actor_config())
    assert loss == 0
    assert metrics == {"actor/mine": 1.0}
