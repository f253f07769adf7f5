"""What a batch of trajectories shows, as flat metrics for a training log."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from workflow_r1.records import total
from workflow_r1.reward import acc_first
from workflow_r1.trajectory import EndedBy, Trajectory


def workflow_metrics(trajectories: Sequence[Trajectory], prefix: str = "workflow") -> dict[str, float]:
    """Counts and timings of a batch.

    Returns:
        per question: `turns/mean`, `calls/mean`, `calls/<operator>`, `operator_tokens/mean`; per turn:
        `generate_seconds/mean`, `operator_seconds/mean` and their `/max`; fractions of trajectories:
        `ended_by/<reason>`, `malformed`, and `unscored`, those that an endpoint did not serve. Beside these, under
        `reward/`, the mean of whatever the reward function returns, over those that were served. What nothing in the
        batch tells is left out.
    """
    if not trajectories:
        return {}
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    calls = [call for trajectory in trajectories for call in trajectory.calls]
    ends = Counter(trajectory.ended_by for trajectory in trajectories)
    operators = Counter(call.operator for call in calls)
    metrics = {
        "turns/mean": len(turns) / len(trajectories),
        "calls/mean": len(calls) / len(trajectories),
        "failed_calls/mean": sum(call.failed for call in calls) / len(trajectories),
        "malformed": _mean(trajectory.num_malformed > 0 for trajectory in trajectories),
        "unscored": _mean(not trajectory.served for trajectory in trajectories),
        "generate_seconds/mean": _mean(turn.generate_seconds for turn in turns),
        "generate_seconds/max": max((turn.generate_seconds for turn in turns), default=0.0),
        "operator_seconds/mean": _mean(turn.operator_seconds for turn in turns),
        "operator_seconds/max": max((turn.operator_seconds for turn in turns), default=0.0),
        **{f"ended_by/{reason.value}": ends[reason] / len(trajectories) for reason in EndedBy},
        **{f"calls/{name}": count / len(trajectories) for name, count in operators.items()},
    }
    if (tokens := total(call.tokens for call in calls)) is not None:
        metrics["operator_tokens/mean"] = tokens / len(trajectories)
    rewards = {f"reward/{part}": mean for part, mean in mean_reward(trajectories).items()}
    return {f"{prefix}/{name}": value for name, value in metrics.items()} | rewards


def mean_reward(trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """The means of what the reward function returned, `acc` first, each over the served trajectories that have it."""
    parts: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        for name, value in trajectory.reward.items() if trajectory.served else ():
            parts[name].append(value)
    return {name: fmean(parts[name]) for name in acc_first(parts)}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0
