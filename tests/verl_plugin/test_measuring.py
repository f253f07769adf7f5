"""The trainer's measurements by turn, on verl's own steps with the workers and the queue replaced."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from workflow_r1.runs.recipe import EMBEDDED, compose_recipe
from workflow_r1.verl_plugin.gsspo_loss import TURN_SUMS
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


def test_the_sums_of_an_update_become_means(monkeypatch: pytest.MonkeyPatch, queue: Queue):
    def update(self: Any, batch: Any, metrics: dict) -> Any:
        sums = {"count": 2.0, "tokens": 14.0}
        groups = ("1", "2", "3", "4", "5_to_8", "from_9", "up_to_16_tokens", "up_to_64_tokens", "up_to_256_tokens")
        for group in (*groups, "up_to_1024_tokens", "longer"):
            there = group in ("1", "up_to_16_tokens")
            metrics |= {f"{TURN_SUMS}{name}/{group}": total * there for name, total in sums.items()}
        metrics["actor/grad_norm"] = 1.0
        return batch

    monkeypatch.setattr(PPOTrainer, "_update_actor", update)
    metrics: dict[str, float] = {}
    trainer(queue)._update_actor(SimpleNamespace(), metrics)
    assert metrics == {
        "actor/grad_norm": 1.0,
        **{
            f"turn_{name}/{group}": value
            for name, value in (("fraction", 1.0), ("tokens", 7.0))
            for group in ("1", "up_to_16_tokens")
        },
    }


def test_an_update_without_sums_is_verls(monkeypatch: pytest.MonkeyPatch, queue: Queue):
    monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics: metrics.update(loss=1.0))
    metrics: dict[str, float] = {}
    trainer(queue)._update_actor(SimpleNamespace(), metrics)
    assert metrics == {"loss": 1.0}
