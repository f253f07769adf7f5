"""Scoring gold answers through the real reward: a bad row shows before a model is there."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from workflow_r1.data.examples import Example
from workflow_r1.protocol import parse_turn
from workflow_r1.reward import RewardWeights, score_trajectory
from workflow_r1.trajectory import EndedBy, Trajectory, Turn


@dataclass(frozen=True)
class Fault:
    """A row that cannot be won, and why."""

    example: Example
    reason: str


@dataclass
class ValidationReport:
    """Rows by data source, and those of them that cannot be won."""

    rows: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def validate_examples(examples: Iterable[Example], weights: RewardWeights | None = None) -> ValidationReport:
    """Answer every question with each of its gold answers, as a policy would, and report what earns too little."""
    report, weights = ValidationReport(), weights or RewardWeights()
    for example in examples:
        report.rows[example.data_source] += 1
        if reason := _fault(example, weights):
            report.faults.append(Fault(example, reason))
    return report


def _fault(example: Example, weights: RewardWeights) -> str | None:
    if example.fault:
        return f"it has {example.fault}"
    full = weights.exact_match + weights.f1
    for gold in example.golds:
        text = f"<think>This is the gold answer.</think><answer>{gold}</answer>"
        turn = parse_turn(text)
        trajectory = Trajectory(
            question=example.question,
            turns=[Turn(text=text, think=turn.think, answer=turn.answer, error=turn.error)],
            ended_by=EndedBy.MALFORMED if turn.answer is None else EndedBy.ANSWERED,
        )
        reward = score_trajectory(trajectory, example.golds, weights)["reward"]
        if reward < full:
            return f"the gold answer {gold!r} earns {reward:g} of {full:g}" + (f": {turn.error}" if turn.error else "")
    return None
