"""The advantage estimator in verl: equal to GRPO's, and reached with its options by verl's trainer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from support.batches import close, random_mask
from support.verl_losses import compose_config
from verl.protocol import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.booleans(), st.integers(0, 2**16))
def test_the_estimator_equals_verls_grpo(num_responses, num_groups, by_std, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = random_mask(num_responses, 6, seed).to(torch.int64)
    mask[:, 0] = 1
    rewards = torch.randn(num_responses, 6, generator=generator, dtype=torch.float64)
    index = np.array(
        [f"uid{i}" for i in torch.randint(num_groups, (num_responses,), generator=generator)], dtype=object
    )
    expected, _ = get_adv_estimator_fn("grpo")(rewards.clone(), mask, index, norm_adv_by_std_in_grpo=by_std)
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": by_std})
    advantages, returns = get_adv_estimator_fn("gsspo")(
        token_level_rewards=rewards, response_mask=mask, config=config, index=index
    )
    close(advantages, expected, rtol=1e-6, atol=1e-6)  # verl divides a lone response by a 1 in float32
    assert torch.equal(returns, advantages)


@pytest.mark.parametrize("by_std", [True, False])
def test_verls_trainer_reaches_the_estimator_and_its_options(by_std):
    mask = torch.tensor([[1, 0, 1], [1, 0, 1], [0, 0, 0]])
    rewards = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    uid = np.array(["a", "a", "a"], dtype=object)

    config = compose_config(f"algorithm.norm_adv_by_std_in_grpo={by_std}", "+algorithm.gsspo_credit=outcome")

    def advantages(credit):
        config.algorithm.gsspo_credit = credit
        data = DataProto.from_dict(
            {"token_level_rewards": rewards.clone(), "response_mask": mask}, non_tensors={"uid": uid}
        )
        return compute_advantage(data, "gsspo", config=config.algorithm).batch["advantages"]

    # The third response is out of training. Outcomes 3 and 0; with turn rewards 1 and 0, and the first turns' 2 and 0.
    # Each pair a, 0 is centred to ±a/2, and its standard deviation is a/√2.
    outcome, turns = advantages("outcome"), advantages("turn_rewards")
    sign = torch.tensor([[1.0], [-1.0], [0.0]])
    if by_std:
        torch.testing.assert_close(outcome, sign * 0.70710678 * mask, rtol=0, atol=2e-6)
        torch.testing.assert_close(turns, sign * torch.tensor([1.41421356, 0.0, 0.70710678]), rtol=0, atol=4e-6)
    else:
        torch.testing.assert_close(outcome, sign * 1.5 * mask)
        torch.testing.assert_close(turns, sign * torch.tensor([1.5, 0.0, 0.5]))


def test_verls_own_dataclass_in_place_of_its_yaml_has_the_default():
    mask, rewards = torch.ones(2, 3, dtype=torch.int64), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    options = {"response_mask": mask, "index": np.array(["a", "a"], dtype=object)}
    found, expected = (
        get_adv_estimator_fn("gsspo")(token_level_rewards=rewards, config=config, **options)[0]
        for config in (AlgoConfig(), None)
    )
    assert torch.equal(found, expected)
