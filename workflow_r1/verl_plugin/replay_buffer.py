"""verl's replay buffer, plus what only a look at the sampled trajectories can tell: workflow metrics and records.

Selected with `trainer.v1.sampler.custom_sampler.{path,name}`, verl's own extension point.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.verl_rows import row_golds
from workflow_r1.metrics import workflow_metrics
from workflow_r1.operators import RunCoordinator
from workflow_r1.trajectory import Trajectory, write_jsonl
from workflow_r1.verl_plugin.agent_loop_manager import LOST
from workflow_r1.verl_plugin.stops import RolloutsLost
from workflow_r1.verl_plugin.upstream import ReplayBuffer


class WorkflowReplayBuffer(ReplayBuffer):
    """Samples as verl's synchronous buffer does and reports on the trajectories that it hands out.

    It lives in the driver for as long as the run does, so it also hosts the `RunCoordinator`, which keeps the limits
    of the operators across all rollout workers and adds up what they spend.

    Args:
        sampler_kwargs: `trainer.v1.sampler.sampler_kwargs`:
            `poll_interval`, seconds between looks for finished trajectories (verl waits 2 s, which would be most
            of a step of a small model);
            `trajectory_dir`, where `train/<step>.jsonl` and `val/<step>.jsonl` are written, or None;
            `workflow_r1`, the section of that name.
    """

    poll_interval: float  # seconds, verl's

    def __init__(self, *, sampler_kwargs: Any, **kwargs: Any):
        super().__init__(sampler_kwargs=sampler_kwargs, **kwargs)
        self.poll_interval = sampler_kwargs.get("poll_interval", self.poll_interval)
        folder = sampler_kwargs.get("trajectory_dir")
        self._trajectory_dir = Path(folder) if folder else None
        self._files: set[Path] = set()
        section = WorkflowConfig.parse(sampler_kwargs)
        self._max_lost_fraction = section.max_lost_fraction
        self._lost: Counter[str] = Counter()
        self._validated: list[bool] = []  # whether each trajectory was served
        self._dead_worker: Callable[[], str | None] = lambda: None
        self._coordinator = None
        if section.run_dir is not None:
            limits = section.operator_settings(os.environ).limits
            self._coordinator = RunCoordinator(section.run_dir, limits, section.budget, host=_address())

    def watch(self, dead_worker: Callable[[], str | None]) -> None:
        """Ask `dead_worker` while waiting for rollouts; it says why a rollout worker ended, or None."""
        self._dead_worker = dead_worker

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """As verl's.

        Raises:
            RolloutsLost: more rollouts raised than `workflow_r1.max_lost_fraction` allows, or a worker is gone.
        """
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        trajectories = _read_trajectories(batch.keys, partition_id)
        if self._trajectory_dir is not None:
            self._write(self._trajectory_dir / partition_id / f"{global_steps}.jsonl", trajectories)
        spent = {} if self._coordinator is None else self._coordinator.ledger.take_step().metrics()
        if partition_id == "train":
            metrics["workflow/rollouts_lost"] = self.take_lost(partition_id)
        else:
            self._validated += [trajectory.served for trajectory in trajectories]
        return batch, {**metrics, **workflow_metrics(trajectories), **spent}

    def take_lost(self, partition_id: str) -> int:
        """How many rollouts of a partition raised since the last time."""
        return self._lost.pop(partition_id, 0)

    def take_unscored(self) -> float:
        """The fraction of validation trajectories since the last time that an endpoint did not serve."""
        validated, self._validated = self._validated, []
        return 1 - sum(validated) / len(validated) if validated else 0.0

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], batch_size: int) -> tuple:
        """Between verl's choice of the groups and their removal from the queue: counts what they lost."""
        uids, trajectories, steps = super()._select_prompt_uids(partition_id, sampleable_keys, batch_size)
        tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
        reasons: Counter[str] = Counter()
        for uid in uids:
            failed = tags[uid]["status"] == "failure"
            reasons.update(tags[uid].get(LOST) or ({"an exception, see the log": 1} if failed else {}))
        self._lost[partition_id] += reasons.total()
        kept = len({key.rsplit("_", 1)[0] for key in trajectories if key.split("_")[0] in set(uids)})
        if (lost := reasons.total()) > self._max_lost_fraction * (lost + kept):
            reason, times = reasons.most_common(1)[0]
            raise RolloutsLost(
                f"{lost} of {lost + kept} {'validation ' if partition_id == 'val' else ''}rollouts of a batch ended in "
                f"an exception, more than workflow_r1.max_lost_fraction={self._max_lost_fraction:g} allows: "
                f"{'all' if times == lost else times} of them in {reason.rstrip('.')}. Its traceback is in the log."
            )
        return uids, trajectories, steps

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        if reason := self._dead_worker():
            raise RolloutsLost(f"A rollout worker's process ended, and its rollouts with it: {reason}")
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def stop_reason(self) -> str | None:
        """One sentence that says why the run should stop at its next checkpoint, or None."""
        return None if self._coordinator is None else self._coordinator.ledger.exceeded()

    def _write(self, path: Path, trajectories: list[Trajectory]) -> None:
        """Add to a step's file, which a step may fill in several parts; a resumed run starts it anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path not in self._files:
            path.unlink(missing_ok=True)
            self._files.add(path)
        write_jsonl(path, trajectories)


def _address() -> str:
    """The address at which this run's other nodes reach this one; the loopback where there are none."""
    alone = len([node for node in ray.nodes() if node["Alive"]]) == 1
    return "127.0.0.1" if alone else ray.util.get_node_ip_address()


def _read_trajectories(keys: Sequence[str], partition_id: str) -> list[Trajectory]:
    """The records behind `keys`; rows of other agent loops have none."""
    if not keys:
        return []
    fields = ["extra_fields", "reward_model", "rm_scores"]
    data = tq.kv_batch_get(keys=list(keys), partition_id=partition_id, select_fields=fields)
    rewards = [float(scores.sum()) for scores in data["rm_scores"].unbind()]
    extras, truths = data.pop("extra_fields").tolist(), data.pop("reward_model").tolist()
    trajectories = []
    for extra, truth, reward in zip(extras, truths, rewards, strict=True):
        if record := extra.get("trajectory"):
            trajectory = Trajectory.model_validate(record)
            trajectory.golds = list(row_golds(truth))
            parts = extra.get("reward_extra_info", {})  # a reward function of the user's may add text
            numbers = {name: float(part) for name, part in parts.items() if isinstance(part, Real)}
            trajectory.reward = {"reward": reward, **numbers} if trajectory.served else {}
            trajectories.append(trajectory)
    return trajectories
