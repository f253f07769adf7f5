"""Scoring gold answers through the real reward: a bad row shows before a model is there."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import fmean

from workflow_r1.data.examples import Example
from workflow_r1.protocol import parse_turn
from workflow_r1.reward import Operators, Reward, acc_first
from workflow_r1.trajectory import EndedBy, Trajectory, Turn


@dataclass(frozen=True)
class Fault:
    """A row that cannot be won, and why."""

    example: Example
    reason: str


@dataclass
class ValidationReport:
    """Rows by data source, those of them that cannot be won, and what gold answers earn.

    Attributes:
        earned: by data source and part of the reward, what each gold answer earned.
    """

    rows: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    earned: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def means(self, data_source: str) -> dict[str, float]:
        """The mean of each part of the reward over the gold answers, `acc` first."""
        parts = self.earned[data_source]
        return {name: fmean(parts[name]) for name in acc_first(parts)}


async def validate_examples(
    examples: Iterable[Example], reward: Reward, operators: Callable[[], Operators | None] = lambda: None
) -> ValidationReport:
    """Answer every question with each of its gold answers, as a policy would, and report what does not win.

    A gold answer wins with an `acc` of 1; where the reward function returns none, by earning more than no answer does.

    Args:
        operators: for one scoring, where the reward function asks them.

    Raises:
        RewardError: the reward function failed.
    """
    report = ValidationReport()
    for example in examples:
        report.rows[example.data_source] += 1
        if reason := await _fault(example, reward, operators, report.earned[example.data_source]):
            report.faults.append(Fault(example, reason))
    return report


def answering(question: str, answer: str) -> Trajectory:
    """The trajectory of a policy that answers at once."""
    text = f"<think>I know it.</think><answer>{answer}</answer>"
    turn = parse_turn(text)
    return Trajectory(
        question=question,
        turns=[Turn(text=text, think=turn.think, answer=turn.answer, error=turn.error)],
        ended_by=EndedBy.MALFORMED if turn.answer is None else EndedBy.ANSWERED,
    )


def silent(question: str) -> Trajectory:
    """The trajectory of a policy that thinks until it may not any more."""
    turn = Turn(text="<think>Let me see", error="A turn starts with <think>...</think>.")
    return Trajectory(question=question, turns=[turn], ended_by=EndedBy.LENGTH_LIMIT)


async def _fault(
    example: Example, reward: Reward, operators: Callable[[], Operators | None], earned: dict[str, list[float]]
) -> str | None:
    if example.fault:
        return f"it has {example.fault}"
    for gold in example.golds:
        trajectory = answering(example.question, gold)
        await reward.score(trajectory, example.golds, example.row, operators())
        if trajectory.unscored is not None:
            return f"the gold answer {gold!r} could not be scored: {trajectory.unscored}"
        for name, part in trajectory.reward.items():
            earned[name].append(part)
        if not await _wins(trajectory, example, reward, operators):
            figures = ", ".join(f"{name} {trajectory.reward[name]:g}" for name in acc_first(trajectory.reward))
            error = trajectory.turns[0].error
            return f"the gold answer {gold!r} earns {figures}" + (f": {error}" if error else "")
    return None


async def _wins(
    trajectory: Trajectory, example: Example, reward: Reward, operators: Callable[[], Operators | None]
) -> bool:
    if "acc" in trajectory.reward:
        return trajectory.reward["acc"] >= 1
    unanswered = silent(example.question)
    await reward.score(unanswered, example.golds, example.row, operators())
    return trajectory.reward["reward"] > unanswered.reward.get("reward", float("-inf"))
