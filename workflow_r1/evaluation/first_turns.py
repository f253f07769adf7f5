"""Whether the first turns of an evaluation are turns: where none is, the server rather than the policy may be why."""

from workflow_r1.evaluation.record import Record

_ENOUGH = 8  # questions
_SHOWN = 60  # characters


class FirstTurns:
    """Watches the first turn of the first questions.

    Args:
        questions: how many there are in all.
    """

    def __init__(self, questions: int) -> None:
        self._unwatched = min(questions, _ENOUGH)
        self._all_malformed = True

    def warning(self, record: Record) -> str | None:
        """After the last question that is watched, one sentence where no first turn was well-formed."""
        if self._unwatched == 0 or record.trajectory is None:
            return None
        first = record.trajectory.turns[0]
        self._unwatched -= 1
        self._all_malformed &= first.error is not None
        if self._unwatched or not self._all_malformed:
            return None
        return (
            f"No first turn has been well-formed so far. {first.error} The last one began {first.text[:_SHOWN]!r}. If "
            "the policy does write its turns as in training, the server alters them: serve it without "
            "--reasoning-parser and --tool-call-parser, with its own chat template, and see that --prompt is right."
        )
