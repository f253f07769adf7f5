"""What is kept of the trajectories that a run samples: a file a step, metrics, and what their operators have cost."""

import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from statistics import fmean

import ray
import transfer_queue as tq

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.verl_rows import row_golds
from workflow_r1.metrics import workflow_metrics
from workflow_r1.operators import RunCoordinator
from workflow_r1.trajectory import Trajectory, write_jsonl


class RunRecorder:
    """Lives in the driver for as long as the run does, so it also hosts the `RunCoordinator`, which keeps the limits
    of the operators across all rollout workers and adds up what they spend.

    Args:
        trajectory_dir: where `train/<step>.jsonl` and `val/<step>.jsonl` are written, or None.
    """

    def __init__(self, section: WorkflowConfig, trajectory_dir: Path | None) -> None:
        self._trajectory_dir = trajectory_dir
        self._files: set[Path] = set()
        self._validated: list[bool] = []  # whether each trajectory was served
        self._endings = section.endings
        self._coordinator = None
        if section.run_dir is not None:
            limits = section.operator_settings(os.environ).limits
            self._coordinator = RunCoordinator(section.run_dir, limits, section.budget, host=_address())

    def record(self, keys: Sequence[str], partition_id: str, global_steps: int) -> dict[str, float]:
        """Write the trajectories behind the transfer queue's `keys` to their step's file; returns their metrics."""
        trajectories = _read_trajectories(keys, partition_id)
        if self._trajectory_dir is not None:
            self._write(self._trajectory_dir / partition_id / f"{global_steps}.jsonl", trajectories)
        metrics = workflow_metrics(trajectories)
        if partition_id == "val":
            self._validated += [trajectory.served for trajectory in trajectories]
        elif trajectories:
            metrics["workflow/masked"] = fmean(self._endings.of(one.ended_by) == "masked" for one in trajectories)
        spent = {} if self._coordinator is None else self._coordinator.ledger.take_step().metrics()
        return metrics | spent

    def take_unscored(self) -> float | None:
        """The fraction of validation trajectories since the last time that an endpoint did not serve; None of none."""
        validated, self._validated = self._validated, []
        return 1 - sum(validated) / len(validated) if validated else None

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
