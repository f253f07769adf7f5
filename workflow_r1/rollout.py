"""The multi-turn loop: think, call operators, read, think again, answer.

One loop serves training, evaluation and asking a single question. What differs is the `PolicySession`: where
the policy's tokens come from, and how an observation enters its context.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

import anyio
from pydantic import BaseModel, ConfigDict, Field

from workflow_r1.observation import ObservationFilter, TruncateSide
from workflow_r1.operators import OperatorPool
from workflow_r1.protocol import OperatorCall, parse_turn, render_observation
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn


class RolloutLimits(BaseModel):
    """Bounds of one trajectory."""

    model_config = ConfigDict(
        title="Bounds of a trajectory", extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    max_turns: int | None = Field(default=21, ge=1)
    """Turns of the policy, of which the last has to answer; none leaves it to the other bounds."""

    max_turn_length: int | None = Field(default=None, ge=1)
    """Tokens of one turn, which ends the trajectory if it is not over by then; none leaves it to those of all turns."""

    max_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall-clock seconds of the trajectory, all waiting included, after which whatever it waits for is called off; none
    waits."""

    max_calls: int = Field(default=20, ge=1)
    """Operator calls; the policy may still answer after the last one."""

    max_parallel_calls: int = Field(default=1, ge=1)
    """Operator calls in one turn."""

    max_malformed_turns: int = Field(default=2, ge=0)
    """Malformed turns that get a warning; the next one ends the trajectory."""

    max_observation_length: int = Field(default=1024, ge=1)
    """Tokens of one operator's output that the policy reads."""

    truncate_side: TruncateSide = "middle"
    """Where a longer output is cut."""

    keep_failed: bool = False
    """Go on after an operator call that the endpoint could not serve, with a one-line notice as observation, instead of
    ending the trajectory there."""


@dataclass(frozen=True)
class GeneratedTurn:
    """What the policy wrote in one turn.

    Attributes:
        text: the generated text, cut after the stop string.
        tokens: `(start, end)` in the response tokens.
        seconds: wall-clock time of the generation.
        cut_by: the limit that cut the turn off before it was over, `LENGTH_LIMIT` or `TURN_LENGTH_LIMIT`, or None.
    """

    text: str
    tokens: tuple[int, int]
    seconds: float
    cut_by: EndedBy | None = None


class PolicySession(Protocol):
    """One conversation with a policy."""

    async def take_turn(self, max_calls: int, max_tokens: int | None = None) -> GeneratedTurn:
        """Generate one turn, stopping at a closed `</answer>`, after `max_calls` closed `</tool>` or at `max_tokens`.

        Where this is cancelled, the context stays as it was before the turn.
        """
        ...

    async def observe(self, observation: str) -> bool:
        """Append an observation to the context; False, with the context as it was, if there is no room for it."""
        ...


async def rollout(
    question: str,
    session: PolicySession,
    operators: OperatorPool,
    limits: RolloutLimits,
    tokenizer: Any = None,
) -> Trajectory:
    """Let the policy work on one question until it answers or meets a limit.

    Args:
        tokenizer: the policy's, if it is known: it counts what the policy reads, and operator output must not be able
            to write its special tokens.
    """
    readable = ObservationFilter(limits.max_observation_length, limits.truncate_side, tokenizer)
    turns: list[Turn] = []
    ended_by = EndedBy.DEADLINE
    with anyio.move_on_after(limits.max_seconds):
        ended_by = await _take_turns(turns, session, operators, limits, readable)
    return Trajectory(question=question, turns=turns, ended_by=ended_by)


async def _take_turns(
    turns: list[Turn],
    session: PolicySession,
    operators: OperatorPool,
    limits: RolloutLimits,
    readable: ObservationFilter,
) -> EndedBy:
    """Add turns until a limit or an answer ends them. Those that are whole stay where this is cancelled."""
    trajectory_id = uuid4().hex  # the operators' limits take turns by it
    ended_by = None
    while ended_by is None:
        calls_left = limits.max_calls - sum(len(turn.calls) for turn in turns)
        max_calls = min(limits.max_parallel_calls, max(calls_left, 1))
        generated = await session.take_turn(max_calls, limits.max_turn_length)
        parsed = parse_turn(generated.text, max_calls)
        turn = Turn(
            text=generated.text,
            tokens=generated.tokens,
            think=parsed.think,
            answer=parsed.answer,
            error=parsed.error,
            generate_seconds=generated.seconds,
        )
        turns.append(turn)
        is_last = len(turns) == limits.max_turns

        if turn.answer is not None:
            ended_by = EndedBy.ANSWERED
        elif generated.cut_by is not None:
            ended_by = generated.cut_by
        elif turn.error is not None:
            ended_by, observation = await _warn(turns, operators, limits)
        elif calls_left < len(parsed.calls):
            ended_by = EndedBy.CALL_LIMIT
        elif is_last:  # nobody would read what they return
            ended_by = EndedBy.TURN_LIMIT
        else:
            started = time.perf_counter()
            try:
                turn.calls = list(
                    await asyncio.gather(*(_call(call, trajectory_id, operators, readable) for call in parsed.calls))
                )
            finally:  # also of calls that the deadline cuts off
                turn.operator_seconds = time.perf_counter() - started
            observation = render_observation([(call.operator, call.output) for call in turn.calls])
            if any(call.failed for call in turn.calls) and not limits.keep_failed:
                ended_by = EndedBy.OPERATOR_FAILURE

        if ended_by is None and is_last:
            ended_by = EndedBy.TURN_LIMIT
        if ended_by is None and not await session.observe(observation):
            ended_by = EndedBy.LENGTH_LIMIT
    return ended_by


async def _warn(turns: list[Turn], operators: OperatorPool, limits: RolloutLimits) -> tuple[EndedBy | None, str]:
    """What a malformed turn leads to: the end of the trajectory, or the WarningOp observation."""
    if sum(turn.error is not None for turn in turns) > limits.max_malformed_turns:
        return EndedBy.MALFORMED, ""
    warning = await operators.warn(turns[-1].error or "")
    return None, render_observation([(warning.operator, warning.text)])


async def _call(
    call: OperatorCall, trajectory_id: str, operators: OperatorPool, readable: ObservationFilter
) -> CallRecord:
    result = await operators.call(call.operator, call.input, trajectory_id)
    return CallRecord(
        operator=call.operator,
        input=call.input,
        output=readable(result.text),
        failed=result.failed,
        error=result.error,
        seconds=result.seconds,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
    )
