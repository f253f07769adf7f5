"""`workflow-r1 operators ...` as a user types it."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
import support.faulty_endpoint as c
from support.hostile_replies import HOSTILE, obeyed
from typer.testing import CliRunner

from workflow_r1.cli.operators import operators_app
from workflow_r1.operators import Budget, OperatorResult, RunLedger
from workflow_r1.services import http_client

OWN = """
from workflow_r1.operators import InputField, OperatorSpec
Shout = OperatorSpec(name="Shout", use_when="it is loud", inputs=(InputField(name="text"),), prompt="{text}")
"""


@pytest.fixture
def run(endpoint, monkeypatch):
    """Runs a command beside the endpoint."""
    monkeypatch.setenv("COLUMNS", "200")
    for name, value in (("BASE_URL", endpoint.url), ("API_KEY", c.KEY), ("MODEL_NAME", "small")):
        monkeypatch.setenv(f"OPERATOR_{name}", value)
    for name in ("SEARCH_URL", "SEARCH_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    async def invoke(*arguments: str):
        return await asyncio.to_thread(CliRunner().invoke, operators_app, list(map(str, arguments)))

    return invoke


async def test_list_shows_every_operator_search_and_ones_own(run, tmp_path, monkeypatch):
    (tmp_path / "own_shout.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    result = await run("list", "--module", "own_shout")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.output.splitlines()]
    assert names[0] == "operator"
    assert {"AnswerGenerate", "ScEnsemble", "Search", "Shout"} < set(names)
    assert "it is loud" in result.output


async def test_call_prints_the_output_alone_on_standard_output(run, endpoint):
    result = await run("call", "AnswerGenerate", "Capital of France?")
    assert (result.exit_code, result.stdout) == (0, "Paris\n")
    assert "10 + 5 tokens" in result.stderr


async def test_a_reply_is_shown_to_the_terminal_and_not_obeyed_by_it(run, endpoint):
    endpoint.behaviour = c.result(HOSTILE.replace("\ud800", ""))
    result = await run("call", "AnswerGenerate", "q")
    assert result.exit_code == 0
    assert not obeyed(result.stdout)
    assert "[bold]not bold[/bold] [/] :smile:" in result.stdout
    endpoint.behaviour = c.status(400, HOSTILE.replace("\ud800", ""))
    result = await run("call", "AnswerGenerate", "q")
    assert "answered 400: ␛[2J␛]0;title␇" in result.stderr
    assert not obeyed(result.stderr)


async def test_a_call_that_fails_says_why(run, endpoint):
    endpoint.behaviour = c.status(401)
    result = await run("call", "AnswerGenerate", "q")
    assert result.exit_code == 1
    assert "set OPERATOR_API_KEY to a key that it accepts" in result.stderr
    assert c.KEY not in result.output
    result = await run("call", "Review", "q")
    assert "error: Review needs <question>" in result.stderr


@pytest.mark.parametrize("fault", ["nothing there", "no such host", "down", "silent"])
async def test_a_call_that_nobody_serves_ends_within_seconds_and_says_what_was_tried(run, endpoint, monkeypatch, fault):
    urls = {"nothing there": "http://127.0.0.1:9/v1", "no such host": "http://no-such-host.invalid/v1"}
    monkeypatch.setattr(http_client, "CONNECT_SECONDS", 0.2)
    endpoint.behaviour = c.status(503)
    with unaccepting() if fault == "silent" else nullcontext(urls.get(fault, endpoint.url)) as url:
        monkeypatch.setenv("OPERATOR_BASE_URL", url)
        started = time.monotonic()
        result = await run("call", "AnswerGenerate", "q")
    assert time.monotonic() - started < 5
    assert result.exit_code == 1
    assert url in result.stderr
    assert " Tried 2 time(s) in " in result.stderr


@contextmanager
def unaccepting() -> Iterator[str]:
    """The URL of an address that takes no further connection, and does not refuse one either."""
    with socket.socket() as server, ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


async def test_check_names_the_model_and_the_round_trip(run):
    result = await run("check")
    assert result.exit_code == 0
    assert result.output.startswith("main: small answers in 0.")


async def test_check_says_what_to_do(run, endpoint, monkeypatch):
    endpoint.behaviour = c.status(404)
    result = await run("check")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "It serves: small, large." in result.output
    monkeypatch.delenv("OPERATOR_API_KEY")
    result = await run("check")
    assert result.output.startswith("error: OPERATOR_API_KEY is not set")


async def test_a_corpus_is_built_and_searched(run, tmp_path):
    rows = [{"title": name, "text": f"{name} is a city."} for name in ("Paris", "Rome")]
    (tmp_path / "passages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = await run("index", tmp_path / "passages.jsonl", tmp_path / "index")
    assert result.output.startswith("2 passages in ")
    result = await run("call", "Search", "Rome", "--index", tmp_path / "index")
    assert result.stdout == "[1] Rome\nRome is a city.\n"
    result = await run("check", "--index", tmp_path / "index")
    assert [line.split(":")[0] for line in result.output.splitlines()] == ["main", "search"]
    result = await run("call", "Search", "Rome")
    assert (result.exit_code, "has no back end" in result.output) == (1, True)


async def test_usage_shows_a_runs_ledger(run, tmp_path):
    ledger = RunLedger(tmp_path / "ledger.json", Budget())
    ledger.add(OperatorResult("Review", "", requests=1, prompt_tokens=1000, completion_tokens=234, cost=0.5))
    ledger.take_step()
    result = await run("usage", tmp_path / "ledger.json")
    assert result.output.splitlines()[1].split()[:2] == ["Review", "1"]
    assert "1,234" in result.output.splitlines()[-1]
    assert (await run("usage", tmp_path / "none.json")).exit_code == 1
