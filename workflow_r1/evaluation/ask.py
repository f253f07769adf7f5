"""Asking a policy one question and watching it work."""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status
from rich.text import Text

from workflow_r1.evaluation.summary import Prices
from workflow_r1.evaluation.systems import Attempt, Policy
from workflow_r1.protocol import parse_turn, read_observation
from workflow_r1.records import shown, total
from workflow_r1.rollout import GeneratedTurn, PolicySession
from workflow_r1.system.terminal import printable_json

_INDENT = 11  # width of the column of labels


async def ask(question: str, policy: Policy, prices: Prices, seed: int, console: Console) -> Attempt:
    """Print the policy's turns and what it reads back as they happen, then the answer and what it cost.

    Raises:
        PolicyEndpointError: the policy could not be asked.
    """
    started = time.perf_counter()
    _line(console, "question", question, "bold")
    session = policy.session(question, seed)
    with console.status("thinking") as status:
        trajectory = await policy.rollout(question, _Watched(session, console, status))
    for call in trajectory.calls:
        if call.failed:
            _line(console, "failed", call.error or call.output, "red")
    if trajectory.answer is None:
        _line(console, "no answer", trajectory.ended_by.value.replace("_", " "), "red")
    attempt = Attempt(trajectory, session.prompt_tokens, session.completion_tokens)
    _line(console, "cost", f"{_cost(attempt, prices)}, {time.perf_counter() - started:.1f} s", "dim")
    return attempt


@dataclass
class _Watched:
    """A session that shows what passes through it."""

    session: PolicySession
    console: Console
    status: Status
    turns: int = 0

    async def take_turn(self, max_calls: int, max_tokens: int | None = None) -> GeneratedTurn:
        self.status.update("thinking")
        generated = await self.session.take_turn(max_calls, max_tokens)
        self.turns += 1
        turn = parse_turn(generated.text, max_calls)
        if turn.error is not None:
            _line(self.console, f"{self.turns} malformed", generated.text.strip(), "red")
            return generated
        _line(self.console, f"{self.turns} think", turn.think, "dim")
        for call in turn.calls:
            _line(self.console, "  call", f"{call.operator}: {call.input}", "cyan")
        if turn.answer is not None:
            _line(self.console, "  answer", turn.answer, "bold green")
        else:
            self.status.update("waiting for " + ", ".join(call.operator for call in turn.calls))
        return generated

    async def observe(self, observation: str) -> bool:
        _line(self.console, "  reads", read_observation(observation))
        return await self.session.observe(observation)


def _line(console: Console, label: str, text: str, style: str = "") -> None:
    """A label, and the text beside it, its further lines indented alike."""
    padded = text.replace("\n", "\n" + " " * (_INDENT + 2))
    line = Text.assemble((f"{label:<{_INDENT}}  ", "dim"), (padded, style))
    console.print(line, soft_wrap=True)


def _cost(attempt: Attempt, prices: Prices) -> str:
    calls = attempt.trajectory.calls
    operators = total(call.tokens for call in calls)
    dollars = prices.cost(attempt.trajectory, attempt.prompt_tokens, attempt.completion_tokens)
    priced = "" if dollars == 0 else f", US$ {shown(dollars, '.6f')}"
    tokens = f"{shown(attempt.tokens, 'd')} policy tokens, {shown(operators, 'd')} operator tokens"
    return f"{len(calls)} operator call(s), {tokens}{priced}"


def to_json(attempt: Attempt, prices: Prices) -> str:
    """The answer, the whole trajectory and what it cost, for a program."""
    trajectory = attempt.trajectory
    content = {
        "question": trajectory.question,
        "answer": trajectory.answer,
        "ended_by": trajectory.ended_by.value,
        "turns": [turn.model_dump(mode="json") for turn in trajectory.turns],
        "policy_prompt_tokens": attempt.prompt_tokens,
        "policy_completion_tokens": attempt.completion_tokens,
        "operator_prompt_tokens": total(call.prompt_tokens for call in trajectory.calls),
        "operator_completion_tokens": total(call.completion_tokens for call in trajectory.calls),
        "cost_usd": prices.cost(trajectory, attempt.prompt_tokens, attempt.completion_tokens),
    }
    return printable_json(content)
