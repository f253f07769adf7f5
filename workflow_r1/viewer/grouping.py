"""The rollouts of one question beside each other: what each did, and where they part ways."""

from collections.abc import Sequence

from workflow_r1.trajectory import Trajectory, Turn


def actions(trajectory: Trajectory) -> list[str]:
    """What each turn did in a few words, such as `Search ∥ Review`, `answer` or `malformed`."""
    return [_action(turn) for turn in trajectory.turns]


def shared_turns(trajectories: Sequence[Trajectory]) -> int:
    """The leading turns that all have in common: with the same calls, or the same answer."""
    shared = 0
    for turns in zip(*(trajectory.turns for trajectory in trajectories), strict=False):
        if len({_identity(turn) for turn in turns}) > 1:
            break
        shared += 1
    return shared


def _action(turn: Turn) -> str:
    if turn.answer is not None:
        return "answer"
    if turn.error is not None:
        return "malformed"
    return " ∥ ".join(call.operator for call in turn.calls) or "call not made"


def _identity(turn: Turn) -> tuple[object, ...]:
    calls = tuple((call.operator, call.input) for call in turn.calls)
    return calls, turn.answer, turn.text if turn.error is not None else None
