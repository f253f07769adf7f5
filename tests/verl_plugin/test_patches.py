"""What gsspo needs in verl's trainer and no registry reaches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transfer_queue
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn


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


def test_one_output_for_each_of_many_rollouts_is_what_gsspo_takes():
    keys = [f"{uid}_{rollout}_0" for uid in "ab" for rollout in range(12)]
    assert advantages("gsspo", keys).shape == (24, 1)


Rows = list[list[float]]


def credited(credit: str, rewards: Rows, mask: list[list[int]], log_ratio: Rows) -> torch.Tensor:
    """The advantages of one question's rollouts after a rejection, as `PPOTrainer._compute_advantage` goes about it."""
    batch = {"response_mask": torch.tensor(mask), "token_level_rewards": torch.tensor(rewards)}
    batch["rollout_log_probs"] = torch.full_like(batch["token_level_rewards"], -1.0)
    batch["old_log_probs"] = batch["rollout_log_probs"] + torch.tensor(log_ratio)
    data = DataProto.from_dict(batch, non_tensors={"uid": np.array(["a"] * len(mask), dtype=object)})
    correction = RolloutCorrectionConfig(rollout_rs="turn_max_k2", rollout_rs_threshold="0.1")  # type: ignore[call-arg]
    data, _ = trainer_base.compute_rollout_correction_and_add_to_batch(data, correction)
    keys = [f"a_{rollout}_0" for rollout in range(len(mask))]
    config = OmegaConf.create({"gsspo_credit": credit, "norm_adv_by_std_in_grpo": False})
    compute = trainer_base.compute_advantage_for_multi_trajectories
    return compute(data, batch_keys=keys, adv_estimator="gsspo", config=config).batch["advantages"]


def test_a_rejected_turns_reward_does_not_fall_to_the_turn_before_it():
    rewards = [[1.0, 0.0, -8.0, 0.0, 1.0], [2.0, 0.0, 5.0, 0.0, 0.0]]
    mask, far_off = [[1, 0, 1, 0, 1]] * 2, [[0.0, 0.0, 3.0, 0.0, 0.0], [0.0] * 5]
    found = credited("turn_rewards", rewards, mask, far_off)
    # Outcomes 1 and 0; of the turns before the last 1, 2 and 5 are trained on, whose mean is 8/3.
    torch.testing.assert_close(found[0], torch.tensor([0.5 + 1 - 8 / 3, 0.0, 0.0, 0.0, 0.5]))
    torch.testing.assert_close(found[1], torch.tensor([-0.5 + 2 - 8 / 3, 0.0, -0.5 + 5 - 8 / 3, 0.0, -0.5]))


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict[str, Any]]], None]:
    """Puts what agent loops recorded into the transfer queue."""

    def put(extras: list[dict[str, Any]]) -> None:
        rows = list_of_dict_to_tensordict([{"extra_fields": extra} for extra in extras])
        monkeypatch.setattr(transfer_queue, "kv_batch_get", lambda keys, partition_id, select_fields: rows.clone())

    return put


def recorded(*inputs: str) -> dict[str, Any]:
    """A rollout that calls Search with these, one a turn, and then answers."""
    calls = [[CallRecord(operator="Search", input=text, output="o")] for text in inputs]
    turns = [Turn(text="t", tokens=(2 * place, 2 * place + 1), calls=made) for place, made in enumerate([*calls, []])]
    return {"trajectory": Trajectory(question="q", turns=turns, ended_by=EndedBy.ANSWERED).model_dump(mode="json")}


def test_anchors_reach_the_states_of_the_rollouts(queue: Callable[[list[dict[str, Any]]], None]):
    padding = recorded("a", "b", "c")  # verl copies a row and empties its mask
    queue([recorded("Velmora"), recorded(" velmora "), recorded("Paris"), padding])
    mask = [[1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 0]]
    rewards = [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]
    found = credited("anchors", rewards, mask, [[0.0] * 3] * 4)
    # Outcomes 1, 0 and 1/2 with mean 1/2, which all first turns have in common; only two second turns share a state.
    expected = [[1.0, 0.0, 1.0], [-1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_anchors_without_records_are_refused_with_what_to_set(queue: Callable[[list[dict[str, Any]]], None]):
    queue([{}, recorded("x")])
    with pytest.raises(ValueError, match="of what workflow_r1_agent_loop rolls out: train with both"):
        credited("anchors", [[0.0, 1.0]] * 2, [[1, 1]] * 2, [[0.0] * 2] * 2)
