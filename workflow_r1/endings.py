"""What each way in which a trajectory ends means for the loss: the `workflow_r1.endings` section."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workflow_r1.trajectory import EndedBy, Trajectory

Treatment = Literal["trained", "masked", "shaped"]


class Endings(BaseModel):
    """By how it ended, a trajectory is

    - `trained` on;
    - `masked`: no token of it enters the loss, and it is no part of its group's statistics;
    - `shaped`: trained on, with DAPO's soft penalty (arXiv 2503.14476, eq. 13) for a response near the longest.
    """

    model_config = ConfigDict(title="Endings", extra="forbid", frozen=True, use_attribute_docstrings=True)

    answered: Treatment = "trained"
    call_limit: Treatment = "trained"
    turn_limit: Treatment = "trained"
    length_limit: Treatment = "trained"
    turn_length_limit: Treatment = "trained"
    malformed: Treatment = "trained"

    deadline: Treatment = "masked"
    """Time is mostly the machine's doing: the same tokens take longer in a full batch."""

    operator_failure: Literal["masked"] = "masked"
    """It has no reward."""

    cache_length: int | None = Field(default=None, ge=1)
    """L_cache: the last tokens of the response length, over which the penalty of `shaped` grows from 0 to 1."""

    @model_validator(mode="after")
    def _shapes_by_a_length(self) -> "Endings":
        if any(self.of(ended_by) == "shaped" for ended_by in EndedBy) != (self.cache_length is not None):
            raise ValueError(
                "cache_length and at least one ending that is shaped need each other: set both, or neither"
            )
        return self

    def of(self, ended_by: EndedBy) -> Treatment:
        """What such an ending means."""
        return getattr(self, ended_by.value)

    def shape(self, trajectory: Trajectory, response_length: int) -> None:
        """Add the penalty to the reward of a trajectory that has one, where any ending is `shaped`.

        It stands among the reward's parts as `length_penalty`, in [-1, 0].

        Args:
            response_length: L_max, tokens of all turns and observations that a response has room for.
        """
        if self.cache_length is None or not trajectory.reward:
            return
        length = trajectory.turns[-1].tokens[1] if trajectory.turns else 0
        is_shaped = self.of(trajectory.ended_by) == "shaped"
        penalty = soft_length_penalty(length, response_length, self.cache_length) if is_shaped else 0.0
        trajectory.reward["reward"] += penalty
        trajectory.reward["length_penalty"] = penalty


def soft_length_penalty(length: int, longest: int, cache: int) -> float:
    """DAPO's: 0 up to `longest` - `cache` tokens, -1 from `longest` on, linear between."""
    return max(-1.0, min(0.0, (longest - cache - length) / cache))
