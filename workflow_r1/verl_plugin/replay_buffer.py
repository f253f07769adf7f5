"""The replay buffer of a run: it counts the rollouts that were lost, and stops waiting for those that cannot come.

Selected with `trainer.v1.sampler.custom_sampler.{path,name}`, verl's own extension point.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import transfer_queue as tq

from workflow_r1.config import WorkflowConfig
from workflow_r1.verl_plugin.agent_loop_manager import LOST
from workflow_r1.verl_plugin.filtering import FilteringReplayBuffer
from workflow_r1.verl_plugin.recorder import RunRecorder
from workflow_r1.verl_plugin.stops import RolloutsLost


class WorkflowReplayBuffer(FilteringReplayBuffer):
    """Samples as verl's synchronous buffer does, and has what it hands out recorded.

    Args:
        sampler_kwargs: `trainer.v1.sampler.sampler_kwargs`:
            `poll_interval`, seconds between looks for finished trajectories (verl waits 2 s, which would be most
            of a step of a small model);
            `trajectory_dir`, as `RunRecorder` takes it;
            `workflow_r1`, the section of that name.

    Attributes:
        recorder: of what was sampled.
    """

    poll_interval: float  # seconds, verl's

    def __init__(self, *, sampler_kwargs: Any, **kwargs: Any):
        section, folder = WorkflowConfig.parse(sampler_kwargs), sampler_kwargs.get("trajectory_dir")
        super().__init__(endings=section.endings, sampler_kwargs=sampler_kwargs, **kwargs)
        self.poll_interval = sampler_kwargs.get("poll_interval", self.poll_interval)
        self.recorder = RunRecorder(section, Path(folder) if folder else None)
        self._max_lost_fraction = section.max_lost_fraction
        self._lost: Counter[str] = Counter()  # by partition
        self._reasons: Counter[str] = Counter()  # for which the batch that is being sampled has lost rollouts
        self._dead_worker: Callable[[], str | None] = lambda: None

    def watch(self, dead_worker: Callable[[], str | None]) -> None:
        """Ask `dead_worker` while waiting for rollouts; it says why a rollout worker ended, or None."""
        self._dead_worker = dead_worker

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """As verl's.

        Raises:
            RolloutsLost: more rollouts raised than `workflow_r1.max_lost_fraction` allows, or a worker is gone; or as
                `FilteringReplayBuffer.sample`.
        """
        self._reasons.clear()
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        metrics |= self.recorder.record(batch.keys, partition_id, global_steps)
        if partition_id == "train":
            metrics["workflow/rollouts_lost"] = self.take_lost(partition_id)
        return batch, metrics

    def take_lost(self, partition_id: str) -> int:
        """How many rollouts of a partition raised since the last time."""
        return self._lost.pop(partition_id, 0)

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], batch_size: int) -> tuple:
        """Between verl's choice of the groups and their removal from the queue: counts what they lost."""
        uids, trajectories, steps = super()._select_prompt_uids(partition_id, sampleable_keys, batch_size)
        self._count_lost(partition_id, uids)
        kept = len({key.rsplit("_", 1)[0] for key in trajectories if key.split("_")[0] in set(uids)})
        self._stop_if_too_many(partition_id, kept)
        return uids, trajectories, steps

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, eviction_reasons: tuple) -> tuple:
        """Before groups of which nothing is left are asked anew: counts them, who may go on failing without end."""
        if failed := eviction_reasons[2]:
            group = self._count_lost(partition_id, failed) // len(failed)
            self._stop_if_too_many(partition_id, kept=self._wanted * group)
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _count_lost(self, partition_id: str, uids: Iterable[str]) -> int:
        tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
        reasons: Counter[str] = Counter()
        for uid in uids:
            failed = tags[uid]["status"] == "failure"
            reasons.update(tags[uid].get(LOST) or ({"an exception, see the log": 1} if failed else {}))
        self._reasons += reasons
        self._lost[partition_id] += reasons.total()
        return reasons.total()

    def _stop_if_too_many(self, partition_id: str, kept: int) -> None:
        lost = self._reasons.total()
        if lost > self._max_lost_fraction * (lost + kept) or (lost and not kept):
            reason, times = self._reasons.most_common(1)[0]
            raise RolloutsLost(
                f"{lost} of {lost + kept} {'validation ' if partition_id == 'val' else ''}rollouts of a batch ended in "
                f"an exception, more than workflow_r1.max_lost_fraction={self._max_lost_fraction:g} allows: "
                f"{'all' if times == lost else times} of them in {reason.rstrip('.')}. Its traceback is in the log."
            )

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        if reason := self._dead_worker():
            raise RolloutsLost(f"A rollout worker's process ended, and its rollouts with it: {reason}")
        return super()._wait_for_next_poll(partition_id, last_debug_time)
