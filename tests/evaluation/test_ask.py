"""Asking one question shows the work as it is done."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from support.scripted_endpoint import after_the_checks

from workflow_r1.evaluation.ask import ask
from workflow_r1.evaluation.config import PolicySettings
from workflow_r1.evaluation.opening import open_policy
from workflow_r1.evaluation.systems import Attempt
from workflow_r1.world.server import Faults, RunningServer
from workflow_r1.world.world import World


def question(world: World) -> str:
    return next(question.text for question in world.questions if question.query.hops == 2)


async def asked(question: str, policy: RunningServer, screen: io.StringIO, **settings: object) -> Attempt:
    values = {"policy_prompt_price": 1, "policy": policy.base_url, "prompt": "none", **settings}
    chosen = PolicySettings.model_validate(values)
    async with open_policy(chosen, Path(), lambda text: None) as opened:
        return await ask(question, opened, chosen.prices(opened.operators), 0, Console(file=screen, width=100))


async def test_turns_and_observations_are_printed_as_they_happen(
    operators: RunningServer, policy: RunningServer, world: World
) -> None:
    screen, seen = io.StringIO(), []
    policy.endpoint.watch = lambda body: seen.append(screen.getvalue())
    await asked(question(world), policy, screen)

    before = seen[1:]  # what the screen showed when each turn was asked for; the first request is the probe
    assert question(world) in before[0]
    assert "think" not in before[0]
    for turn, screen_then in enumerate(before[1:], start=1):
        assert screen_then.count("  call") == turn
        assert screen_then.count("  reads") == turn
        assert f"{turn} think" in screen_then
        assert f"{turn + 1} think" not in screen_then
    assert "MultiAnswerGenerate: " in before[1]
    assert "[Answer 1]" in before[1]  # literally, not taken for markup
    assert "  answer" in screen.getvalue()


async def test_it_ends_with_the_answer_and_the_cost(
    operators: RunningServer, policy: RunningServer, world: World
) -> None:
    screen = io.StringIO()
    attempt = await asked(question(world), policy, screen, operators={"completion_price": 1})
    *_, answer, cost = screen.getvalue().splitlines()
    assert answer.split() == ["answer", attempt.trajectory.answer]
    calls, tokens = attempt.trajectory.calls, attempt.prompt_tokens + attempt.completion_tokens
    assert f"{len(calls)} operator call(s), {tokens} policy tokens" in cost
    dollars = (attempt.prompt_tokens + sum(call.completion_tokens for call in calls)) / 1e6
    assert f"US$ {dollars:.6f}" in cost


async def test_what_went_wrong_is_shown(operators: RunningServer, policy: RunningServer, world: World) -> None:
    screen = io.StringIO()
    outage = Faults(outage=True)
    policy.endpoint.watch = after_the_checks(lambda: setattr(operators.endpoint, "faults", outage))
    await asked(question(world), policy, screen, operators={"max_retries": 0})
    failed = next(line for line in screen.getvalue().splitlines() if line.startswith("failed "))
    assert failed.endswith("answered 503: The simulated service is down.")
    assert "no answer    operator failure" in screen.getvalue()


async def test_a_malformed_turn_is_shown_as_it_was_written(
    operators: RunningServer, policy: RunningServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def babble(query: object, world: object, rng: object) -> object:
        yield "just [bold]text[/bold]"
        yield "<think>done</think><answer>x</answer>"

    policy.endpoint.behaviour = babble
    screen = io.StringIO()
    await asked(question(world), policy, screen)
    assert "1 malformed  just [bold]text[/bold]" in screen.getvalue()
    assert "A turn starts with <think>" in screen.getvalue()
