"""Turn and Trajectory: the one record that rollout, reward, evaluation and reports share."""

from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from workflow_r1.records import Text, read_lines, total


class EndedBy(str, Enum):
    """Why a trajectory ended.

    `CALL_LIMIT`: it asked for more operator calls than were left. `TURN_LIMIT`: its last turn was no answer.
    `LENGTH_LIMIT`: its tokens were used up. `TURN_LENGTH_LIMIT`: those of one turn were. `MALFORMED`: one malformed
    turn too many. Not the policy's doing are `DEADLINE`: its time was up, and `OPERATOR_FAILURE`: the endpoint could
    not serve a call.
    """

    ANSWERED = "answered"
    CALL_LIMIT = "call_limit"
    TURN_LIMIT = "turn_limit"
    LENGTH_LIMIT = "length_limit"
    TURN_LENGTH_LIMIT = "turn_length_limit"
    MALFORMED = "malformed"
    DEADLINE = "deadline"
    OPERATOR_FAILURE = "operator_failure"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CallRecord(_Record):
    """One operator call and what came of it.

    Attributes:
        output: the observation text, as the policy read it.
        failed: the endpoint could not serve the call; the policy is not to blame.
        error: why, for the user; the policy does not read it.
        seconds: wall-clock time of the call.
        prompt_tokens: as the operators' endpoint counts them; None where it does not.
        completion_tokens: likewise.
    """

    operator: Text
    input: Text
    output: Text
    failed: bool = False
    error: Text | None = None
    seconds: float = 0.0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0

    @property
    def tokens(self) -> int | None:
        """Prompt and completion together."""
        return total([self.prompt_tokens, self.completion_tokens])


class Turn(_Record):
    """One turn of the policy: it thinks, and then calls operators or answers.

    A turn whose calls were made has `calls`, one that answers has `answer`, and one that broke the grammar has `error`.
    A turn with none of the three asked for calls that were not made, since it was the last one or they were more than
    were left, or that the deadline cut off; its trajectory ended there.

    Attributes:
        text: what the policy generated, verbatim.
        tokens: `(start, end)` of this turn in the response tokens, the sub-sequence of GSsPO.
        think: its thought, without the tags.
        calls: the operator calls, with what came of them.
        answer: the answer, without the tags.
        error: what broke the grammar, as the policy is told.
        reward: what it earned by itself, where the reward function says so by turn.
        generate_seconds: wall-clock time that the policy took.
        operator_seconds: wall-clock time until all calls were served.
    """

    text: Text
    tokens: tuple[int, int] = (0, 0)
    think: Text = ""
    calls: list[CallRecord] = []
    answer: Text | None = None
    error: Text | None = None
    reward: float | None = None
    generate_seconds: float = 0.0
    operator_seconds: float = 0.0


class Trajectory(_Record):
    """One question worked on, from the prompt to how it ended and what it earned.

    Attributes:
        golds: the gold answers.
        reward: what the reward function returned, by name; `reward` is all that the policy is trained on, and `turns`
            how much of it single turns earned.
        unscored: why it has no reward, where something that it or its reward asked could not be served.
    """

    question: Text
    turns: list[Turn] = []
    ended_by: EndedBy
    data_source: Text = ""
    golds: list[Text] = []
    reward: dict[Text, float] = {}
    unscored: Text | None = None

    @property
    def served(self) -> bool:
        """Whether all that it took was served: only then has it a part in the loss and in scores."""
        return self.unscored is None and self.ended_by is not EndedBy.OPERATOR_FAILURE

    @property
    def answer(self) -> str | None:
        """The answer, from the last turn that the policy itself wrote, or None."""
        return self.turns[-1].answer if self.turns else None

    @property
    def calls(self) -> list[CallRecord]:
        return [call for turn in self.turns for call in turn.calls]

    @property
    def num_malformed(self) -> int:
        return sum(turn.error is not None for turn in self.turns)

    @property
    def states(self) -> list[tuple]:
        """What each turn starts from: the question alone, or the calls (or the mistake) of the turn before it.

        Equal ones, of the same question, can be compared. An input counts without regard to case and blanks.
        """
        return [(), *(_state_after(turn) for turn in self.turns)][: len(self.turns)]


def _state_after(turn: Turn) -> tuple:
    return turn.error, *((call.operator, " ".join(call.input.casefold().split())) for call in turn.calls)


def write_jsonl(path: Path, trajectories: Iterable[Trajectory]) -> None:
    """Append trajectories to a JSONL file, one a line."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(trajectory.model_dump_json() + "\n" for trajectory in trajectories)


def read_jsonl(path: Path) -> Iterator[Trajectory]:
    """Read what `write_jsonl` wrote; what is no trajectory, such as a torn last line, is left out with a warning."""
    return read_lines(path, Trajectory.model_validate_json)
