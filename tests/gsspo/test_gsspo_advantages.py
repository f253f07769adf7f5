"""Group-relative advantages: against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from support.batches import close

from workflow_r1.advantage import group_relative_advantages
from workflow_r1.credit import Credit


def outcome_rewards(scores, num_tokens=4):
    rewards = torch.zeros(len(scores), num_tokens, dtype=torch.float64)
    rewards[:, -1] = torch.tensor(scores, dtype=torch.float64)
    return rewards


def test_advantages_are_the_outcomes_normalised_in_the_group():
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]])
    groups = ["q1", "q2", "q1", "q2"]
    rewards = outcome_rewards([1.0, -1.0, 0.0, 3.0])
    # q1: 1 and 0, mean 0.5, std 0.7071067812; q2: -1 and 3, mean 1, std 2.8284271247
    scaled = [0.7071057812, -0.7071065312, -0.7071057812, 0.7071065312]
    for by_std, expected in ((True, scaled), (False, [0.5, -2.0, -0.5, 2.0])):
        advantages = group_relative_advantages(rewards, mask, groups, normalise_by_std=by_std)
        close(advantages, torch.tensor(expected, dtype=torch.float64)[:, None] * mask)


def test_a_response_left_out_of_training_does_not_touch_its_group():
    mask = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]])
    rewards = torch.tensor([[0.0, 1.0], [0.0, -100.0], [0.0, 0.0], [0.0, float("nan")]])
    advantages = group_relative_advantages(rewards, mask, [7, 7, 7, 7], normalise_by_std=False)
    assert advantages.tolist() == [[0.5, 0.5], [0.0, 0.0], [-0.5, 0.0], [0.0, 0.0]]


def test_the_only_response_of_a_group_that_is_trained_on_has_nothing_to_be_compared_with():
    mask = torch.tensor([[1, 1], [0, 0], [1, 1]])
    advantages = group_relative_advantages(torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 3.0]]), mask, ["a", "a", "b"])
    assert advantages[0].tolist() == [0.0, 0.0]
    assert advantages[2].tolist() == pytest.approx([3.0, 3.0])


def test_a_group_of_one_keeps_its_reward_and_an_empty_batch_is_all_zero():
    rewards, mask = outcome_rewards([2.0]), torch.tensor([[1, 0, 0, 1]])
    close(group_relative_advantages(rewards, mask, ["a"]), [[2 / (1 + 1e-6), 0, 0, 2 / (1 + 1e-6)]])
    assert not group_relative_advantages(rewards, torch.zeros(1, 4), ["a"]).any()


@pytest.mark.parametrize("by_std", [True, False])
@pytest.mark.parametrize(
    "rewards",
    [
        torch.full((16, 1), 0.9),  # their mean is not 0.9 in float32
        torch.full((7, 1), -0.3, dtype=torch.float64),
        torch.full((5, 1), 1e6 / 3),
        torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.0, 0.0], [0.0, 0.15, 0.15]]),  # equal up to rounding
        torch.zeros(4, 2),
    ],
)
def test_where_all_did_equally_well_every_advantage_is_exactly_zero(rewards, by_std):
    advantages = group_relative_advantages(
        rewards, torch.ones(rewards.shape), ["q"] * len(rewards), normalise_by_std=by_std
    )
    assert not advantages.any()


def test_a_small_difference_that_is_no_rounding_counts():
    advantages = group_relative_advantages(torch.tensor([[0.9], [0.9001]]), torch.ones(2, 1), "aa")
    assert advantages.sign().tolist() == [[-1.0], [1.0]]


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([3, 5, 3, 5]),
        list(torch.tensor([3, 5, 3, 5])),
        np.array([3, 5, 3, 5]),
        np.array(["a", "b", "a", "b"], dtype=object),
        (label for label in ("x", "y", "x", "y")),
        torch.tensor([[3], [5], [3], [5]]),
        np.array([[3.0], [5.0], [3.0], [5.0]]),
        [np.array(3), np.array(5), np.array(3), np.array(5)],
    ],
)
def test_labels_of_any_kind_make_the_same_groups(labels):
    rewards, mask = outcome_rewards([1.0, 0.0, 0.0, 2.0]), torch.ones(4, 4)
    advantages = group_relative_advantages(rewards, mask, labels, normalise_by_std=False)
    close(advantages[:, 0], [0.5, -1.0, -0.5, 1.0])


@pytest.mark.parametrize(
    "labels", [torch.zeros(4, 2), [[1], [2], [1], [2]], [float("nan")] * 4, torch.full((4,), torch.nan)]
)
def test_labels_that_make_no_groups_are_refused(labels):
    with pytest.raises(ValueError, match="group label"):
        group_relative_advantages(outcome_rewards([0.0] * 4), torch.ones(4, 4), labels)


def test_too_few_labels_are_refused():
    with pytest.raises(ValueError, match="3 labels for 4 responses"):
        group_relative_advantages(outcome_rewards([0.0] * 4), torch.ones(4, 4), "abc")


def test_inputs_are_left_as_they_were():
    rewards, mask = outcome_rewards([1.0, 0.0]), torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]])
    before = rewards.clone(), mask.clone()
    group_relative_advantages(rewards, mask, "aa", credit=Credit("anchors"), states=[[1, 2], [1, 2]])
    assert torch.equal(rewards, before[0])
    assert torch.equal(mask, before[1])
