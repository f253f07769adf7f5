"""What gsspo needs in verl's trainer and no registry reaches."""

import numpy as np
import pytest
import torch
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import trainer_base


def advantages(estimator: str, keys: list[str]) -> torch.Tensor:
    """As `PPOTrainer._compute_advantage` asks for them; every row of a question earns another reward."""
    data = DataProto.from_dict(
        {
            "token_level_rewards": torch.arange(len(keys), dtype=torch.float32)[:, None],
            "response_mask": torch.ones(len(keys), 1, dtype=torch.int64),
        },
        non_tensors={"uid": np.array([key.split("_")[0] for key in keys], dtype=object)},
    )
    compute = trainer_base.compute_advantage_for_multi_trajectories
    return compute(data, batch_keys=keys, adv_estimator=estimator, config={}).batch["advantages"]


def test_several_outputs_of_one_rollout_are_refused_by_gsspo_alone():
    keys = ["a_0_0", "a_1_0", "a_1_1", "a_1_2"]
    with pytest.raises(ValueError, match=r"several outputs for one rollout, and algorithm.adv_estimator=gsspo would"):
        advantages("gsspo", keys)
    assert len(advantages("grpo", keys)) == 4


def test_one_output_for_each_of_many_rollouts_is_what_gsspo_takes():
    keys = [f"{uid}_{rollout}_0" for uid in "ab" for rollout in range(12)]
    assert advantages("gsspo", keys).shape == (24, 1)
