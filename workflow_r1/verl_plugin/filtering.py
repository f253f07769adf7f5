"""verl's synchronous replay buffer with its group filter and refill on, of which the filter looks at what is trained on
and the search comes to an end.

    algorithm.filter_groups.enable=true
    algorithm.filter_groups.metric=acc               # a part of the reward; reward itself, where it is not shaped
    algorithm.filter_groups.max_num_gen_batches=10   # batches of questions that a step may ask; 0 for no bound
    trainer.v1.sampler.sync_refill_failed_groups=true
"""

import math
from collections import Counter, defaultdict
from typing import Any

import transfer_queue as tq

from workflow_r1.endings import Endings
from workflow_r1.trajectory import EndedBy
from workflow_r1.verl_plugin.stops import RolloutsLost
from workflow_r1.verl_plugin.upstream import ReplayBuffer

_REWARD = "reward"  # verl's name of the whole reward among the metrics


class FilteringReplayBuffer(ReplayBuffer):
    """Evicts groups without a signal and asks further questions in their place, as verl's does."""

    refill_fn: Any  # verl's: asks further questions

    def __init__(self, *, endings: Endings, **kwargs: Any):
        super().__init__(**kwargs)
        self._endings = endings
        self._ask, self.refill_fn = self.refill_fn, self._refill
        self._most_groups = math.inf  # that a step may ask
        self._wanted = self._asked = 0
        self._without_signal = 0

    def configure(self, config: Any) -> None:
        """Read the settings above from a run's configuration: verl 0.9.1 hands them to the class of its own alone
        (trainer/ppo/v1/trainer_base.py:165)."""
        groups, batch = config.algorithm.filter_groups, config.data.train_batch_size
        self.filter_groups_metric = groups.metric if groups.enable else None
        self.sync_refill_failed_groups = config.trainer.v1.sampler.sync_refill_failed_groups
        self.train_batch_size, self.gen_batch_size = batch, 1
        self.max_inflight_gen_batches = groups.max_inflight_gen_batches
        self._most_groups = groups.max_num_gen_batches * batch if groups.max_num_gen_batches > 0 else math.inf
        self._validate_mode_config()

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """As verl's.

        Raises:
            RolloutsLost: the groups that a step may ask have too little signal for a batch.
        """
        self._wanted = self._asked = batch_size
        self._without_signal = 0
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id == "train":
            metrics["workflow/groups_filtered"] = self._without_signal
            metrics["workflow/groups_refilled"] = self._asked - batch_size
        return batch, metrics

    def _refill(self, groups: int) -> None:
        allowed = int(min(groups, self._most_groups - self._asked))
        if allowed > 0:
            self._asked += allowed
            self._ask(allowed)

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter]:
        """In place of verl's, which counts what is not trained on, and fails where it has no reward.

        A group has no signal where the metric is the same in all of it that is trained on, or where that is at most one
        of several.
        """
        if partition_id == "val" or self.filter_groups_metric is None:
            return set(), Counter()
        finished, known = self.finished_keys[partition_id], self._dapo_classification_cache[partition_id]
        for uid in known.keys() - finished:
            del known[uid]
        new = finished - known.keys()
        keys = [key for key in self.partitions[partition_id] if key.split("_")[0] in new]
        for uid, values in self._metric_by_group(partition_id, keys).items():
            trained = [value for value in values if value is not None]
            known[uid] = None
            if len(values) > 1 and (len(trained) < 2 or min(trained) == max(trained)):
                known[uid] = trained[0] if trained else math.nan
                self._without_signal += 1
        filtered = {uid: value for uid, value in known.items() if value is not None}
        return set(filtered), Counter(filtered.values())

    def _metric_by_group(self, partition_id: str, keys: list[str]) -> dict[str, list[float | None]]:
        """By prompt, the metric of each of its trajectories; None of one that is not trained on."""
        by_group: dict[str, list[float | None]] = defaultdict(list)
        if not keys:
            return by_group
        fields = ["extra_fields", "rm_scores"]
        data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=fields)
        rewards = [float(scores.sum()) for scores in data["rm_scores"].unbind()]
        for key, extra, reward in zip(keys, data.pop("extra_fields").tolist(), rewards, strict=True):
            by_group[key.split("_")[0]].append(self._metric(extra, reward))
        return by_group

    def _metric(self, extra: dict, reward: float) -> float | None:
        if record := extra.get("trajectory"):  # other agents' loops have none
            is_masked = self._endings.of(EndedBy(record["ended_by"])) == "masked"
            if is_masked or record["unscored"] is not None:
                return None
        parts = {_REWARD: reward, **extra.get("reward_extra_info", {})}
        if self.filter_groups_metric not in parts:
            raise RolloutsLost(
                f"algorithm.filter_groups.metric={self.filter_groups_metric} is no part of a trajectory's reward: name "
                f"one of {', '.join(parts)}."
            )
        return float(parts[self.filter_groups_metric])

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        under_way = self.pending_keys[partition_id] | self.running_keys[partition_id]
        if partition_id == "train" and self._asked >= self._most_groups and not under_way:
            found = len(self.finished_keys[partition_id] | self.failure_keys[partition_id])
            lost = self._asked - found - self._without_signal
            raise RolloutsLost(
                f"A step has asked {self._asked} questions, as many as algorithm.filter_groups.max_num_gen_batches "
                f"allows, and {found} of the {self._wanted} that it needs have a signal: in {self._without_signal} all "
                f"rollouts that are trained on have the same {self.filter_groups_metric}, in {lost} all ended in an "
                "exception, which is in the log. Take questions that the policy answers at times, more rollouts of "
                "each, or raise algorithm.filter_groups.max_num_gen_batches."
            )
        return super()._wait_for_next_poll(partition_id, last_debug_time)
