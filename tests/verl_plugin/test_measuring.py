"""The trainer's measurements by turn, on verl's own steps with the workers and the queue replaced."""

from typing import Any

import numpy as np
import pytest
import torch
import transfer_queue
from support.batches import random_batch
from support.verl_losses import actor_config, run_loss
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base

from workflow_r1.runs.recipe import EMBEDDED, compose_recipe
from workflow_r1.verl_plugin.gsspo_loss import TURN_SUMS, GSsPOLossConfig
from workflow_r1.verl_plugin.measuring import MeasuringTrainer

BYPASS = "algorithm.rollout_correction.bypass_mode"
RESPONSES = 64


class Queue:
    """Stands for the transfer queue: fields by key."""

    def __init__(self, patch: pytest.MonkeyPatch):
        sampler = {
            "responses": torch.ones(3),
            "response_mask": torch.ones(3),
            "rollout_log_probs": torch.full((3,), -1.0),
        }
        self.rows: dict[str, dict[str, torch.Tensor]] = {f"q{number}_0_0": dict(sampler) for number in range(RESPONSES)}
        patch.setattr(transfer_queue, "kv_batch_get", self.get)
        patch.setattr(transfer_queue, "kv_batch_put", self.put)

    @property
    def batch(self) -> KVBatchMeta:
        return KVBatchMeta(keys=list(self.rows), tags=[{} for _ in self.rows], partition_id="train")

    def get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        columns = {
            field: torch.nested.as_nested_tensor([self.rows[key][field] for key in keys], layout=torch.jagged)
            for field in select_fields
        }
        return TensorDict(columns, batch_size=len(keys))

    def put(self, keys: list[str], partition_id: str, fields: TensorDict) -> KVBatchMeta:
        for name in fields.keys():  # noqa: SIM118  (a TensorDict iterates over its rows)
            for key, row in zip(keys, fields[name].unbind(), strict=True):
                self.rows[key][name] = row
        return self.batch.select_keys(keys)


class Workers:
    """The actor, whose log-probs are -1.1 where the sampler's are -1; `asked` has how many of each call."""

    world_size = 2

    def __init__(self, queue: Queue):
        self.queue, self.asked = queue, []

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        self.asked.append(len(batch))
        self.keys = batch.keys
        for key in batch.keys:
            # verl's actor returns prompt and response together; here the prompt is one token.
            self.queue.rows[key] |= {"log_probs": torch.full((3,), -1.1), "entropy": torch.full((3,), 2.0)}
        return batch


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base.response_from_nested", lambda values, mask: values)
    return Queue(monkeypatch)


def trainer(queue: Queue, *overrides: str) -> Any:
    made = MeasuringTrainer.__new__(MeasuringTrainer)
    made.config = compose_recipe(EMBEDDED, list(overrides))
    made.actor_rollout_wg = Workers(queue)
    return made


def test_the_mismatch_is_measured_on_the_whole_batch(queue: Queue):
    measuring, metrics = trainer(queue), {}
    measuring._compute_old_log_prob(queue.batch, metrics)
    assert measuring.actor_rollout_wg.asked == [RESPONSES]
    assert metrics["mismatch/k1"] == pytest.approx(0.1)
    assert (metrics["turn_entropy/1"], metrics["actor/entropy"]) == (2.0, 2.0)


def test_in_bypass_mode_the_old_log_probs_are_the_samplers_and_the_mismatch_is_that_of_some(queue: Queue):
    measuring, metrics = trainer(queue, f"{BYPASS}=True"), {}
    measuring._compute_old_log_prob(queue.batch, metrics)
    assert measuring.actor_rollout_wg.asked == [RESPONSES // 16]
    assert measuring.actor_rollout_wg.keys == ["q0_0_0", "q16_0_0", "q32_0_0", "q48_0_0"]
    assert {float(row["old_log_probs"].mean()) for row in queue.rows.values()} == {-1.0}
    assert metrics["mismatch/k1"] == pytest.approx(0.1)
    assert metrics["training/rollout_probs_diff_mean"] == pytest.approx(0.035, abs=1e-3)  # e^-1 - e^-1.1
    assert metrics["actor/entropy"] == 2.0
    assert measuring.config.algorithm.rollout_correction.bypass_mode


def test_in_bypass_mode_every_rank_has_something_to_measure(queue: Queue):
    queue.rows = dict(list(queue.rows.items())[:6])
    measuring = trainer(queue, f"{BYPASS}=True")
    measuring._compute_old_log_prob(queue.batch, {})
    assert measuring.actor_rollout_wg.asked == [2]


def reported(mask: list[list[int]], global_batch_size: int) -> dict[str, float]:
    """What the loss reports of a micro-batch."""
    config = actor_config({"global_batch_size": global_batch_size}, policy_loss=GSsPOLossConfig(turn_sums=True))
    return run_loss("gsspo", random_batch(mask, seed=0), config)[2]


def test_the_metrics_of_the_loss_are_of_the_step_whatever_its_parts():
    long, short = [1, 0, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0]
    # Two mini-batches of four responses: one in a micro-batch, the other in one of two and two of one.
    parts = [[reported([short] * 4, 4)], [reported([long] * 2, 4), reported([long], 4), reported([short], 4)]]
    names = parts[0][0].keys()
    averaged = {name: [float(np.mean([part[name] for part in mini])) for mini in parts] for name in names}
    found = trainer_base.reduce_metrics(averaged)
    assert found["turn_fraction/1"] == pytest.approx(8 / 14)
    assert found["turn_fraction/3"] == pytest.approx(3 / 14)
    assert found["turn_tokens/1"] == pytest.approx((5 * 4 + 3 * 1) / 8)
    assert found["turn_tokens/3"] == pytest.approx(2)
    assert "actor/ratio_std" in found
    assert not [name for name in found if name.startswith(TURN_SUMS)]


def test_metrics_without_sums_are_reduced_as_verl_does():
    assert trainer_base.reduce_metrics({"loss": [1.0, 2.0], "a_max": [1.0, 2.0]}) == {"loss": 1.5, "a_max": 2.0}
