"""Several outputs of one rollout are one trajectory in its group."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.trainer.ppo.v1 import trainer_base

from workflow_r1.verl_plugin.outputs import Rollouts


def advantages(estimator: str, keys: list[str], rewards: torch.Tensor, mask: torch.Tensor, **config) -> torch.Tensor:
    """As `PPOTrainer._compute_advantage` asks for them."""
    uids = np.array([key.split("_")[0] for key in keys], dtype=object)
    data = DataProto.from_dict({"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": uids})
    compute = trainer_base.compute_advantage_for_multi_trajectories
    return compute(data, batch_keys=keys, adv_estimator=estimator, config=config).batch["advantages"]


KEYS = ["a_0_0", "a_1_1", "b_0_0", "a_1_0", "b_1_0", "a_2_0", "a_1_2"]  # balanced batches are in no order
MASK = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 0, 1]])


def final(*scores: float) -> torch.Tensor:
    """verl's: the rollout's reward on the last token of every output."""
    rewards = torch.zeros(len(scores), 3)
    rewards[:, -1] = torch.tensor(scores)
    return rewards


def test_a_rollout_counts_once_as_in_verls_grpo():
    rewards = final(1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0)
    grpo = advantages(AdvantageEstimator.GRPO, KEYS, rewards, MASK)
    torch.testing.assert_close(advantages("gsspo", KEYS, rewards, MASK), grpo)
    assert grpo[1, 0] == grpo[6, 0] != 0


def test_its_turns_keep_their_order_over_its_outputs():
    # Rollout 1 has an output of two turns and one of one, rollout 0 one of two turns. A return halves with every turn.
    keys, mask = ["a_0_0", "a_1_1", "a_1_0"], torch.tensor([[1, 0, 1], [1, 1, 1], [1, 0, 1]])
    config = {"gsspo_credit": "discounted", "gsspo_discount": 0.5, "norm_adv_by_std_in_grpo": False}
    found = advantages("gsspo", keys, final(2.0, 8.0, 8.0), mask, **config)
    # First turns' returns are 1 and 2, second ones' 2 and 4; a third turn there is but one of.
    torch.testing.assert_close(found, torch.tensor([[-0.5, 0.0, -1.0], [0.0, 0.0, 0.0], [0.5, 0.0, 1.0]]))


def test_a_turn_does_not_span_two_outputs():
    keys, mask = ["a_0_0", "a_0_1"], torch.tensor([[1, 1, 1], [1, 1, 1]])
    assert Rollouts.of(keys).join(mask).tolist() == [[1, 1, 1, 0, 1, 1, 1, 0]]


def test_what_outputs_before_the_last_carry_is_a_copy_and_does_not_count():
    rewards = final(1.0, 9.0, 0.0)
    keys, mask = ["a_0_0", "a_1_0", "a_1_1"], torch.ones(3, 3)
    found = advantages("gsspo", keys, rewards, mask, norm_adv_by_std_in_grpo=False)
    torch.testing.assert_close(found, torch.tensor([0.5, -0.5, -0.5])[:, None].expand(3, 3))


def test_anchors_take_one_output_a_rollout(monkeypatch: pytest.MonkeyPatch):
    from workflow_r1.verl_plugin import patches

    monkeypatch.setattr(patches, "_states", lambda keys, rollouts: None)
    with pytest.raises(ValueError, match="take another gsspo_credit"):
        advantages("gsspo", KEYS, final(*[0.0] * 7), MASK, gsspo_credit="anchors")


@given(st.permutations(range(6)), st.integers(1, 4))
def test_split_undoes_join(order: list[int], length: int):
    keys = [["x_0_0", "x_0_1", "x_0_2", "x_1_0", "y_0_0", "y_0_1"][row] for row in order]
    values = torch.rand(6, length)
    rollouts = Rollouts.of(keys)
    torch.testing.assert_close(rollouts.split(rollouts.join(values), values), values)


@given(st.integers(1, 5), st.integers(1, 6))
def test_one_output_each_is_left_as_it_is(rows: int, length: int):
    values = torch.rand(rows, length)
    joined = Rollouts.of([f"x_{row}_0" for row in range(rows)]).join(values)
    assert torch.equal(joined[:, :length], values)
