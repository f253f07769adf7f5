"""The limits and the ledger that the processes of a run share."""

import asyncio
import json
import multiprocessing
from collections import Counter

import openai  # noqa: F401  (so that no forked process has to)
import pytest
import support.faulty_endpoint as c

from workflow_r1.operators import (
    Budget,
    OperatorConfigError,
    OperatorEndpointError,
    OperatorPool,
    OperatorSettings,
    RunCoordinator,
)
from workflow_r1.services import services
from workflow_r1.services.coordinator import ADDRESS_FILE
from workflow_r1.services.limiter import Limits
from workflow_r1.services.run_connection import RunConnection


def work(settings: OperatorSettings, first: int, last: int) -> None:
    """What a rollout worker's process does."""

    async def run() -> None:
        async with OperatorPool(settings) as pool:
            calls = (pool.call("AnswerGenerate", f"q{number}") for number in range(first, last))
            assert not any(result.failed for result in await asyncio.gather(*calls))

    asyncio.run(run())


@pytest.fixture
async def connect(tmp_path):
    """Connections to the coordinator in `tmp_path`, each as another process would hold one."""
    connections = []

    def open_one(patience: float = 1.0) -> RunConnection:
        connections.append(RunConnection(tmp_path, patience))
        return connections[-1]

    yield open_one
    for connection in connections:
        await connection.aclose()


async def test_processes_of_a_run_keep_its_limits_together(endpoint, tmp_path):
    """The endpoint counts. Two processes that each would make 25 requests at once."""
    moment = 0.5

    async def slow(request, body):
        await asyncio.sleep(0.02)
        return await c.result("Paris")(request, body)

    endpoint.behaviour = slow
    settings = OperatorSettings(
        base_url=endpoint.url,
        api_key=c.KEY,
        model="small",
        max_concurrency=5,
        requests_per_minute=25,
        run_dir=tmp_path,
    )
    start = multiprocessing.get_context("fork").Process  # nothing to import again
    workers = [start(target=work, args=(settings, first, first + 25)) for first in (0, 25)]
    for worker in workers:
        worker.start()
    with RunCoordinator(tmp_path, settings.limits, window=moment) as coordinator:
        for worker in workers:
            await asyncio.to_thread(worker.join)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert coordinator.ledger.take_step().operators["AnswerGenerate"].calls == 50
    assert len(endpoint.times) == 50
    assert endpoint.most_in_flight == 5
    most = max(sum(time - moment < other <= time for other in endpoint.times) for time in endpoint.times)
    assert 20 <= most <= 25
    assert c.KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_trajectories_of_all_processes_take_turns(connect, tmp_path):
    served: list[str] = []
    with RunCoordinator(tmp_path, {"main": Limits(max_concurrency=1)}):
        greedy, modest = connect(), connect()
        held = await modest.acquire("main", "opening", 1)

        async def visit(connection: RunConnection, trajectory: str) -> None:
            slot = await connection.acquire("main", trajectory, 1)
            served.append(trajectory)
            slot.finish(used=False)

        first = [asyncio.create_task(visit(greedy, "greedy")) for _ in range(20)]
        await asyncio.sleep(0.1)
        second = [asyncio.create_task(visit(modest, name)) for name in ("a", "b")]
        await asyncio.sleep(0.1)
        held.finish(used=False)
        await asyncio.gather(*first, *second)
    assert set(served[:4]) == {"greedy", "a", "b"}
    assert Counter(served) == {"greedy": 20, "a": 1, "b": 1}


async def test_what_a_dead_process_held_or_waited_for_is_free_again(connect, tmp_path):
    with RunCoordinator(tmp_path, {"main": Limits(max_concurrency=1)}):
        dying, living = connect(), connect()
        await dying.acquire("main", "a", 1)
        waits = asyncio.create_task(dying.acquire("main", "b", 1))
        lives = asyncio.create_task(living.acquire("main", "c", 1))
        await asyncio.sleep(0.1)
        assert not lives.done()
        await dying.aclose()
        (await asyncio.wait_for(lives, timeout=2)).finish(used=False)
        with pytest.raises(OperatorEndpointError, match="coordinator of the run's operators has gone"):
            await waits


async def test_a_cancelled_wait_takes_no_slot(connect, tmp_path):
    with RunCoordinator(tmp_path, {"main": Limits(max_concurrency=1)}):
        connection = connect()
        held = await connection.acquire("main", "a", 1)
        waits = asyncio.create_task(connection.acquire("main", "b", 1))
        await asyncio.sleep(0.05)
        waits.cancel()
        held.finish(used=False)
        await asyncio.wait_for(connection.acquire("main", "c", 1), timeout=2)


async def test_a_process_waits_for_its_coordinator_and_finds_the_next_one(connect, tmp_path):
    limits = {"main": Limits()}
    connection = connect(patience=5)
    early = asyncio.create_task(connection.acquire("main", "a", 1))
    await asyncio.sleep(0.05)
    with RunCoordinator(tmp_path, limits):
        await early
    await asyncio.sleep(0.05)
    with RunCoordinator(tmp_path, limits):
        await connection.acquire("main", "a", 1)


async def test_without_a_coordinator_a_call_fails_and_says_what_to_do(endpoint, make_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(services, "PATIENCE", 0.05)
    (tmp_path / ADDRESS_FILE).write_text('{"host": "127.0.0.1", "port": 9, "secret": ""}')  # left by an earlier run
    result = await make_pool(run_dir=tmp_path).call("AnswerGenerate", "q")
    assert result.failed
    assert result.error.startswith("The run's operators are not coordinated in ")
    assert endpoint.bodies == []


async def test_many_calls_wait_for_an_absent_coordinator_together(connect):
    connection, now = connect(patience=0.1), asyncio.get_running_loop().time
    started = now()
    waits = [connection.acquire("main", str(number), 1) for number in range(20)]
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    with pytest.raises(OperatorEndpointError):
        await connection.acquire("main", "late", 1)
    assert {type(outcome) for outcome in outcomes} == {OperatorEndpointError}
    assert now() - started < 1


async def test_a_service_that_the_coordinator_does_not_know_is_refused(connect, tmp_path):
    with (
        RunCoordinator(tmp_path, {"main": Limits()}),
        pytest.raises(OperatorEndpointError, match="does not know the service"),
    ):
        await connect().acquire("other", "a", 1)


async def test_a_stranger_gets_no_word_in(connect, tmp_path):
    with RunCoordinator(tmp_path, {"main": Limits()}) as coordinator:
        address = json.loads((tmp_path / ADDRESS_FILE).read_text())
        assert (tmp_path / ADDRESS_FILE).stat().st_mode & 0o077 == 0
        reader, writer = await asyncio.open_connection(address["host"], address["port"])
        writer.write(b'guess\n{"result": {"operator": "Review"}}\n')
        assert await reader.read() == b""
        writer.close()
        assert coordinator.ledger.total.total.calls == 0


async def test_results_of_every_kind_reach_the_ledger(endpoint, make_pool, tmp_path):
    endpoint.script.extend([c.result("Paris"), c.status(400)])
    pool = make_pool(run_dir=tmp_path, prompt_price=1e6)
    with RunCoordinator(tmp_path, pool.settings.limits, Budget(max_cost=10)) as coordinator:
        for name in ("AnswerGenerate", "AnswerGenerate", "Nonsense"):
            await pool.call(name, "q")
        await pool.warn("The answer is empty.")
        await pool.aclose()
        await asyncio.sleep(0.1)
        metrics = coordinator.ledger.take_step().metrics()
        assert metrics["operators/AnswerGenerate/calls"] == 2
        assert metrics["operators/AnswerGenerate/failed"] == 1
        assert metrics["operators/AnswerGenerate/cost"] == 10
        assert metrics["operators/WarningOp/rejected"] == 2
        assert coordinator.ledger.exceeded() == (
            "The run has used up its budget (10.00 US dollars spent): "
            "raise workflow_r1.budget.max_cost (10.0) to go on."
        )


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OperatorConfigError, match=r"^The operators of the run cannot be coordinated in .*file/run: "):
        RunCoordinator(tmp_path / "file" / "run", {})
