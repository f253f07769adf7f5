"""What a batch of trajectories shows, as flat metrics for a training log."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from workflow_r1.records import total
from workflow_r1.trajectory import EndedBy, Trajectory


def workflow_metrics(trajectories: Sequence[Trajectory], prefix: str = "workflow") -> dict[str, float]:
    """Counts and timings of a batch.

    Returns:
        per question: `turns/mean`, `calls/mean`, `calls/<operator>`, `operator_tokens/mean`; per turn:
        `generate_seconds/mean`, `operator_seconds/mean` and their `/max`; fractions of trajectories:
        `ended_by/<reason>` and `malformed`; and `reward`, `acc`, `f1`, `sub_em` and `no_answer`, means of the reward's
        parts over the trajectories that the operators' endpoint served. What nothing in the batch tells is left out.
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
        "generate_seconds/mean": _mean(turn.generate_seconds for turn in turns),
        "generate_seconds/max": max((turn.generate_seconds for turn in turns), default=0.0),
        "operator_seconds/mean": _mean(turn.operator_seconds for turn in turns),
        "operator_seconds/max": max((turn.operator_seconds for turn in turns), default=0.0),
        **{f"ended_by/{reason.value}": ends[reason] / len(trajectories) for reason in EndedBy},
        **{f"calls/{name}": count / len(trajectories) for name, count in operators.items()},
    }
    if (tokens := total(call.tokens for call in calls)) is not None:
        metrics["operator_tokens/mean"] = tokens / len(trajectories)
    served = [trajectory for trajectory in trajectories if trajectory.ended_by is not EndedBy.OPERATOR_FAILURE]
    for part in ("reward", "acc", "f1", "sub_em", "no_answer"):
        if scores := [trajectory.reward[part] for trajectory in served if part in trajectory.reward]:
            metrics[part] = fmean(scores)
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0
