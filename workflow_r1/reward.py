"""The reward: what a trajectory earns, by a function that the user may replace.

A reward function is plain or async, and is passed by name whichever of these its signature has:

    trajectory  the `Trajectory`: its turns, its calls, its answer (None if it gave none) and how it ended
    golds       the gold answers, a list of texts
    row         the question's row in the data, by column: `data_source`, `extra_info`, ...
    operators   an `Operators`, to ask the run's operators with

Every other parameter is a setting. It returns a number, or named numbers of which `reward` is what the policy is
trained on. `acc` is the name of the core metric, which tables and charts show first; a function that returns none has
its reward in that place. `turns` is a list of one number for each turn, what it earned by itself: `reward` is then the
outcome, and what is recorded as `reward` is the sum of all, and as `turns` the sum of the list. Whatever else it
returns is shown and recorded under its name.

The functions below read the structured turns, never the transcript: an answer counts only where the policy itself wrote
it, so nothing that an operator returns can earn anything.
"""

import asyncio
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.errors import PydanticUserError

from workflow_r1 import answers
from workflow_r1.errors import UserError
from workflow_r1.records import from_json
from workflow_r1.system.loading import load_object
from workflow_r1.trajectory import EndedBy, Trajectory

TURNS = "turns"
"""The part of a reward that is a list, of what each turn earned."""

_PASSED = ("trajectory", "golds", "row", "operators")


def exact_match_reward(
    trajectory: Trajectory,
    golds: Sequence[str],
    *,
    exact_match: float = 1.0,
    f1: float = 0.0,
    malformed: float = -0.5,
    no_answer: float = -1.0,
) -> dict[str, float]:
    """The reference recipe's reward: right or wrong, less for malformed turns, and least for no answer.

    Args:
        exact_match: for an answer that is a gold one.
        f1: times the answer's word overlap with a gold one.
        malformed: added once where an answered trajectory has malformed turns.
        no_answer: all that a trajectory without an answer gets.
    """
    answer = trajectory.answer
    if answer is None:
        return {"acc": 0.0, "f1": 0.0, "sub_em": 0.0, "reward": no_answer}
    acc, overlap = answers.exact_match(answer, golds), answers.f1_score(answer, golds)
    reward = exact_match * acc + f1 * overlap + malformed * (trajectory.num_malformed > 0)
    return {"acc": acc, "f1": overlap, "sub_em": answers.substring_match(answer, golds), "reward": reward}


def f1_reward(
    trajectory: Trajectory, golds: Sequence[str], *, malformed: float = -0.5, no_answer: float = -1.0
) -> dict[str, float]:
    """The word overlap with the best gold answer, in place of right or wrong."""
    return exact_match_reward(trajectory, golds, exact_match=0.0, f1=1.0, malformed=malformed, no_answer=no_answer)


def turn_reward(
    trajectory: Trajectory,
    golds: Sequence[str],
    *,
    exact_match: float = 1.0,
    f1: float = 0.0,
    malformed: float = -0.5,
    call: float = 0.0,
    no_answer: float = -1.0,
) -> dict[str, float | list[float]]:
    """As `exact_match_reward`, but a malformed turn pays for itself, each of them, and an operator call has its price.

    Args:
        malformed: what a malformed turn earns.
        call: what a turn earns for each of its operator calls, so below 0 for a price.
    """
    outcome = exact_match_reward(trajectory, golds, exact_match=exact_match, f1=f1, malformed=0.0, no_answer=no_answer)
    turns = [malformed * (turn.error is not None) + call * len(turn.calls) for turn in trajectory.turns]
    return {**outcome, TURNS: turns}


class RewardError(UserError):
    """The reward function cannot be used, or has failed: one sentence that names it and its setting."""


class NotScored(UserError):
    """Raised by a reward function that cannot tell, through no fault of the policy; the message says why.

    The trajectory then has no part in the loss and in no mean: what was not measured is not a reward of zero.
    """


class Operators(Protocol):
    """What a reward function asks the run's operators with; `workflow_r1.operators.judge` has it."""

    async def call(self, operator: Any, **inputs: str) -> str:
        """The output of an operator, named or declared as an `OperatorSpec`, for the inputs that it declares.

        Raises:
            NotScored: the call could not be served.
        """
        ...


class RewardSettings(BaseModel):
    """Which reward function, and with what settings; a text alone is the function."""

    model_config = ConfigDict(title="Reward", extra="forbid", frozen=True, use_attribute_docstrings=True)

    function: str = "workflow_r1.reward:exact_match_reward"
    """What scores a trajectory: module:function, or path/to/file.py:function (docs/reward.md)."""

    settings: Annotated[dict[str, Any], BeforeValidator(from_json)] = {}
    """The function's own keyword arguments; as JSON '{"no_answer": -0.5}'."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"function": value} if isinstance(value, str) else value


class Reward:
    """A reward function that was loaded and whose settings fit it.

    Args:
        place: how the user names these settings, for messages.

    Attributes:
        asks_operators: whether the function may call operators.

    Raises:
        RewardError: there is no such function, or it cannot be called with these settings.
    """

    def __init__(self, settings: RewardSettings | None = None, place: str = "workflow_r1.reward") -> None:
        settings = settings or RewardSettings()
        self._label = f"{place}: the reward function {settings.function}"
        try:
            self._function = load_object(settings.function)
        except ImportError as error:
            raise RewardError(f"{self._label} {error}") from None
        parameters = self._parameters()
        self._takes = _PASSED if _takes_all(parameters) else tuple(name for name in _PASSED if name in parameters)
        self._settings = self._fitting(settings.settings, parameters)
        self.asks_operators = "operators" in self._takes

    async def score(
        self,
        trajectory: Trajectory,
        golds: Iterable[str],
        row: Mapping[str, Any],
        operators: Operators | None = None,
    ) -> None:
        """Fill in the trajectory's `golds`, and its `reward` and its turns', or, where that could not be had, why it is
        `unscored`.

        A trajectory that an operator failure ended is not scored.

        Args:
            operators: needed where the function `asks_operators`.

        Raises:
            RewardError: the function raised, or what it returned is no reward.
        """
        trajectory.golds = list(golds)
        if trajectory.ended_by is EndedBy.OPERATOR_FAILURE:
            trajectory.unscored = next((call.error or call.output for call in trajectory.calls if call.failed), "")
            return
        passed = {"trajectory": trajectory, "golds": trajectory.golds, "row": row, "operators": operators}
        try:
            returned = await self._call({name: passed[name] for name in self._takes} | self._settings)
        except NotScored as why:
            trajectory.unscored = str(why)
        except (Exception, SystemExit) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
            raise RewardError(f"{self._label} raised {reason}.") from error
        else:
            parts = dict(returned) if isinstance(returned, Mapping) else {"reward": returned}
            by_turn = self._by_turn(parts.pop(TURNS), len(trajectory.turns)) if TURNS in parts else None
            trajectory.reward = self._parts(parts, by_turn)
            for turn, earned in zip(trajectory.turns, by_turn or (), strict=False):
                turn.reward = earned

    async def _call(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(**arguments)
        # A plain function may compute or wait for long: it must not hold up the other trajectories.
        returned = await asyncio.to_thread(self._call_plain, arguments)
        return await returned if inspect.isawaitable(returned) else returned

    def _call_plain(self, arguments: dict[str, Any]) -> Any:
        try:
            return self._function(**arguments)
        except StopIteration as error:  # no future can hold one: whoever waits for it would wait for ever
            raise RuntimeError("StopIteration") from error

    def _by_turn(self, returned: Any, count: int) -> list[float]:
        values = returned.tolist() if hasattr(returned, "tolist") else returned
        numbers = [_finite(value) for value in values] if isinstance(values, list | tuple) else []
        finite = [number for number in numbers if number is not None]
        if not isinstance(values, list | tuple) or not len(finite) == len(numbers) == count:
            raise RewardError(
                f"{self._label} returned {TURNS}={returned!r:.80}, which is no list of one finite number for each of "
                f"the {count} turn(s)."
            )
        return finite

    def _parts(self, parts: dict[Any, Any], by_turn: list[float] | None) -> dict[str, float]:
        if "reward" not in parts:
            raise RewardError(f"{self._label} returned {', '.join(map(str, parts)) or 'nothing'}, and no 'reward'.")
        numbers = {}
        for name, part in parts.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise RewardError(f"{self._label} returned a part named {name!r}: take letters, digits and _.")
            if (number := _finite(part)) is None:
                raise RewardError(f"{self._label} returned {name}={part!r:.80}, which is no finite number.")
            numbers[name] = number
        if by_turn is not None:
            numbers[TURNS] = sum(by_turn)
            numbers["reward"] += numbers[TURNS]
        return numbers

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        """By name, without those that take whatever is left over by position."""
        try:
            signature = inspect.signature(self._function)
        except (TypeError, ValueError):
            raise RewardError(f"{self._label} is no function.") from None
        if any(one.kind is one.POSITIONAL_ONLY for one in signature.parameters.values()):
            raise RewardError(f"{self._label} takes arguments by position only, and they are passed by name.")
        found = {name: one for name, one in signature.parameters.items() if one.kind is not one.VAR_POSITIONAL}
        if "trajectory" not in found and not _takes_all(found):
            raise RewardError(
                f"{self._label} has no parameter 'trajectory' (it has {', '.join(found) or 'none'}): it is passed "
                f"{', '.join(_PASSED)}, whichever it names."
            )
        return found

    def _fitting(self, given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        """The settings, each of the type that the function says; every one there is and has a value."""
        known = {
            name: one for name, one in parameters.items() if name not in _PASSED and one.kind is not one.VAR_KEYWORD
        }
        if unknown := [name for name in given if name in _PASSED or not (name in known or _takes_all(parameters))]:
            takes = ", ".join(known) or "none"
            raise RewardError(f"{self._label} has no setting {unknown[0]!r}: its settings are {takes}.")
        if lacking := [name for name, one in known.items() if one.default is one.empty and name not in given]:
            raise RewardError(
                f"{self._label} has the parameter(s) {', '.join(lacking)} without a value: it is passed "
                f"{', '.join(_PASSED)}; give any other a default, or a value among its settings."
            )
        types = _type_hints(self._function)
        return {name: self._typed(name, value, types.get(name, Any)) for name, value in given.items()}

    def _typed(self, name: str, value: Any, kind: Any) -> Any:
        try:
            return TypeAdapter(kind).validate_python(value)
        except PydanticUserError:  # a type of the user's own, which only the function can judge
            return value
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise RewardError(f"{self._label} cannot have the setting {name}={value!r}: {reason}.") from None


def acc_first(parts: Iterable[str]) -> list[str]:
    """The names of a reward's parts in the order in which they are shown."""
    return sorted(dict.fromkeys(parts), key=lambda name: name != "acc")


def core_part(parts: Iterable[str]) -> str:
    """The part that says how good a policy is."""
    return "acc" if "acc" in parts else "reward"


def _takes_all(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # names that only a type checker sees
        return {}


def _finite(value: Any) -> float | None:
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is what a tensor of many numbers raises
        return None
    return number if math.isfinite(number) else None
