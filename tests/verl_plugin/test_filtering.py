"""Groups without a signal are filtered and refilled by verl's own loop, as far as a step may search."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transfer_queue
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from workflow_r1.trajectory import EndedBy, Trajectory
from workflow_r1.verl_plugin.agent_loop_manager import LOST
from workflow_r1.verl_plugin.replay_buffer import WorkflowReplayBuffer
from workflow_r1.verl_plugin.stops import RolloutsLost

RIGHT, WRONG = (1.0, EndedBy.ANSWERED), (0.0, EndedBy.ANSWERED)
LATE, UNSERVED = (0.0, EndedBy.DEADLINE), (None, EndedBy.OPERATOR_FAILURE)
MIXED, ALL_RIGHT, ALL_WRONG = [RIGHT, WRONG], [RIGHT, RIGHT], [WRONG, WRONG]
GONE: list = []  # each rollout of it raised

Rollout = tuple[float | None, EndedBy]


class Queue:
    """Stands for the transfer queue, the trainer and its rollouts: a question that is asked is a group of `groups` at
    once."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.groups: deque[Sequence[Rollout]] = deque()
        self.asked: list[int] = []
        self.tags: dict[str, dict[str, Any]] = {}
        self.rollouts: dict[str, Rollout] = {}
        for name in ("kv_list", "kv_clear", "kv_batch_get"):
            patch.setattr(transfer_queue, name, getattr(self, name))

    def ask(self, count: int) -> None:
        self.asked.append(count)
        for _ in range(count):
            uid, group = str(len(self.tags)) + "x" * sum(self.asked), self.groups.popleft()
            status, lost = ("finished", {}) if group else ("failure", {LOST: {"KeyError: 'a'": 2}})
            self.tags[uid] = {"is_prompt": True, "status": status, "global_steps": 1, **lost}
            for number, rollout in enumerate(group):
                self.tags[f"{uid}_{number}_0"] = {"status": "success"}
                self.rollouts[f"{uid}_{number}_0"] = rollout

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict]:
        return {"train": dict(self.tags)}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self.tags[key]

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        return list_of_dict_to_tensordict([{name: self.row(key)[name] for name in select_fields} for key in keys])

    def row(self, key: str) -> dict[str, Any]:
        acc, ended_by = self.rollouts[key]
        trajectory = Trajectory(question=key, ended_by=ended_by, unscored="Down." if acc is None else None)
        reward = (acc or 0.0) - 0.001 * int(key.split("_")[1])  # shaped: never the same twice in a group
        return {
            "rm_scores": torch.tensor([reward]),
            "extra_fields": {
                "trajectory": trajectory.model_dump(),
                "reward_extra_info": {} if acc is None else {"acc": acc},
            },
            "reward_model": {"ground_truth": {"target": ["Anker"]}},
        }


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


def new_buffer(queue: Queue, groups: dict[str, Any], batch: int, refill: bool = False, **section: Any) -> Any:
    """As `WorkflowTrainer._build_replay_buffer` makes it."""
    buffer = WorkflowReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create({"poll_interval": 0.0, "workflow_r1": section}),
        refill_fn=queue.ask,
    )
    defaults = {"enable": True, "metric": "acc", "max_num_gen_batches": 10, "max_inflight_gen_batches": 1}
    buffer.configure(
        OmegaConf.create(
            {
                "algorithm": {"filter_groups": defaults | groups},
                "data": {"train_batch_size": batch},
                "trainer": {"v1": {"sampler": {"sync_refill_failed_groups": refill}}},
            }
        )
    )
    return buffer


def sample(queue: Queue, groups: Sequence[Sequence[Rollout]], batch: int, buffer: Any = None, **filtering: Any) -> Any:
    """One step's `(rollouts by group, metrics)`."""
    queue.groups.extend(groups)
    buffer = buffer or new_buffer(queue, filtering, batch)
    queue.ask(batch)  # what the trainer's step begins with
    batch_meta, metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=batch)
    sampled: dict[str, list[Rollout]] = {}
    for key in batch_meta.keys:
        sampled.setdefault(key.split("_")[0], []).append(queue.rollouts[key])
    return list(sampled.values()), metrics


def test_groups_without_a_signal_are_replaced_and_counted(queue: Queue):
    sampled, metrics = sample(queue, [ALL_RIGHT, MIXED, ALL_WRONG, MIXED, ALL_WRONG, MIXED], batch=3)
    assert sampled == [MIXED] * 3
    assert queue.asked == [3, 3]  # twice as many as fell out would be four, of which a batch may be under way
    assert metrics["workflow/groups_refilled"] == 3
    assert metrics["workflow/groups_filtered"] == 3 == metrics["training/filter_groups/evicted_samples"]


def test_on_a_shaped_reward_no_group_would_fall_out_and_on_acc_it_does(queue: Queue):
    assert sample(queue, [ALL_WRONG], batch=1, metric="reward")[0] == [ALL_WRONG]
    assert sample(queue, [ALL_WRONG, MIXED, MIXED], batch=1, metric="acc")[0] == [MIXED]


@pytest.mark.parametrize(
    ("group", "has_signal"),
    [
        ([RIGHT, WRONG, LATE], True),
        ([RIGHT, RIGHT, LATE], False),  # the one that differs is masked
        ([RIGHT, RIGHT, UNSERVED], False),  # the one without a metric, on which verl would fail
        ([RIGHT, WRONG, UNSERVED], True),
        ([RIGHT, LATE, UNSERVED], False),  # nothing to compare it with
        ([LATE, LATE], False),
        ([UNSERVED, UNSERVED], False),
    ],
)
def test_a_signal_is_among_what_is_trained_on(queue: Queue, group: list[Rollout], has_signal: bool):
    sampled, metrics = sample(queue, [group, MIXED, MIXED], batch=1)
    assert sampled == [group if has_signal else MIXED]
    assert metrics["workflow/groups_filtered"] == (0 if has_signal else 1)


def test_a_masked_ending_is_the_runs_setting(queue: Queue):
    buffer = new_buffer(queue, {}, 1, endings={"deadline": "trained"})
    assert sample(queue, [[RIGHT, LATE]], 1, buffer)[0] == [[RIGHT, LATE]]


def test_a_search_without_a_signal_ends_with_a_sentence_at_the_bound(queue: Queue):
    with pytest.raises(RolloutsLost) as error:
        sample(queue, [MIXED] + [ALL_WRONG] * 20, batch=2, max_num_gen_batches=3)
    assert sum(queue.asked) == 6
    assert str(error.value).startswith(
        "A step has asked 6 questions, as many as algorithm.filter_groups.max_num_gen_batches allows, and 1 of the 2 "
        "that it needs have a signal: in 5 all rollouts that are trained on have the same acc, in 0 all ended in an "
    )


def test_a_search_that_loses_its_questions_says_so(queue: Queue):
    buffer = new_buffer(queue, {"max_num_gen_batches": 3}, 2, refill=True, max_lost_fraction=0.95)
    with pytest.raises(
        RolloutsLost, match=r"in 2 all rollouts that are trained on .* acc, in 4 all ended in an exception"
    ):
        sample(queue, [GONE, ALL_WRONG, GONE, ALL_WRONG, GONE, GONE], 2, buffer)


def test_the_last_question_that_a_step_may_ask_is_enough(queue: Queue):
    sampled, metrics = sample(queue, [ALL_WRONG] * 5 + [MIXED, ALL_WRONG], batch=1, max_num_gen_batches=6)
    assert (sampled, sum(queue.asked), metrics["workflow/groups_refilled"]) == ([MIXED], 6, 5)


def test_each_step_has_its_own_bound_and_counts(queue: Queue):
    buffer = new_buffer(queue, {"max_num_gen_batches": 3}, 1)
    for _ in range(3):
        _, metrics = sample(queue, [ALL_WRONG, ALL_RIGHT, MIXED], 1, buffer)
        assert (metrics["workflow/groups_filtered"], metrics["workflow/groups_refilled"]) == (2, 2)


def test_without_a_filter_every_group_stays(queue: Queue):
    sampled, metrics = sample(queue, [ALL_WRONG, [UNSERVED, LATE]], batch=2, enable=False)
    assert sampled == [ALL_WRONG, [UNSERVED, LATE]]
    assert (metrics["workflow/groups_filtered"], metrics["workflow/groups_refilled"]) == (0, 0)


def test_a_metric_that_a_trajectory_does_not_have_is_named(queue: Queue):
    with pytest.raises(RolloutsLost, match=r"filter_groups\.metric=f1 is no part .*: name one of reward, acc\."):
        sample(queue, [MIXED], batch=1, metric="f1")


@pytest.mark.parametrize("enable", [False, True])
def test_a_group_that_is_lost_whole_is_refilled_where_asked_for_and_counted_either_way(queue: Queue, enable: bool):
    buffer = new_buffer(queue, {"enable": enable}, 2, refill=True, max_lost_fraction=0.5)
    sampled, metrics = sample(queue, [GONE, MIXED, MIXED], 2, buffer)
    assert (sampled, metrics["workflow/rollouts_lost"], metrics["workflow/groups_refilled"]) == ([MIXED] * 2, 2, 1)
    shrunk, metrics = sample(queue, [GONE, MIXED], 2, new_buffer(queue, {"enable": enable}, 2, max_lost_fraction=0.5))
    assert (shrunk, metrics["workflow/rollouts_lost"]) == ([MIXED], 2)


@pytest.mark.parametrize("enable", [False, True])
def test_groups_that_go_on_failing_are_not_refilled_without_end(queue: Queue, enable: bool):
    buffer = new_buffer(queue, {"enable": enable, "max_num_gen_batches": 0}, 2, refill=True, max_lost_fraction=0.5)
    with pytest.raises(RolloutsLost, match=r"rollouts of a batch ended in an exception, more than .*0\.5.*KeyError"):
        sample(queue, [GONE] * 50, 2, buffer)
    assert sum(queue.asked) <= 6


def test_a_batch_that_is_lost_whole_stops_the_run_whatever_the_bound(queue: Queue):
    with pytest.raises(RolloutsLost, match="4 of 4 rollouts of a batch ended in an exception"):
        sample(queue, [GONE] * 2, 2, new_buffer(queue, {"enable": False}, 2, max_lost_fraction=1))
