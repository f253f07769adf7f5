import asyncio

import pytest
import support.faulty_endpoint as c

from workflow_r1.services.breaker import CircuitBreaker
from workflow_r1.services.errors import OperatorEndpointError

OUTAGE = OperatorEndpointError("down", retryable=True, outage=True)


async def lose(breaker: CircuitBreaker, times: int, error: Exception = OUTAGE) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            async with breaker.permit(1.0):
                raise error


async def answer(breaker: CircuitBreaker, seconds: float) -> None:
    async with breaker.permit(seconds):
        pass


async def test_it_opens_after_the_threshold_and_an_answer_in_between_starts_the_count_anew():
    breaker = CircuitBreaker(threshold=3, cooldown=10, max_cooldown=10, patience=10)
    await lose(breaker, 2)
    await answer(breaker, 1.0)
    await lose(breaker, 2)
    assert not breaker.is_open
    await lose(breaker, 1)
    assert breaker.is_open


async def test_a_refusal_is_an_answer():
    breaker = CircuitBreaker(threshold=2, cooldown=10, max_cooldown=10, patience=10)
    for _ in range(3):
        await lose(breaker, 1)
        await lose(breaker, 1, OperatorEndpointError("rate limit", retryable=True))
    assert not breaker.is_open


async def test_only_one_probe_goes_out_and_its_answer_lets_all_through():
    breaker = CircuitBreaker(threshold=1, cooldown=0.05, max_cooldown=0.05, patience=10)
    await lose(breaker, 1)
    inside, probe_may_end = [], asyncio.Event()

    async def call(number: int) -> None:
        async with breaker.permit(5.0):
            inside.append(number)
            await probe_may_end.wait()

    calls = [asyncio.create_task(call(number)) for number in range(5)]
    await asyncio.sleep(0.2)
    assert len(inside) == 1
    probe_may_end.set()
    await asyncio.gather(*calls)
    assert len(inside) == 5
    assert not breaker.is_open


async def test_a_failed_probe_doubles_the_pause():
    breaker = CircuitBreaker(threshold=1, cooldown=0.05, max_cooldown=1, patience=10)
    clock = asyncio.get_running_loop().time
    await lose(breaker, 1)
    started = clock()
    await lose(breaker, 1)
    first = clock()
    await lose(breaker, 1)
    assert first - started >= 0.05
    assert clock() - first >= 0.1


async def test_a_cancelled_probe_makes_room_for_the_next():
    breaker = CircuitBreaker(threshold=1, cooldown=0.01, max_cooldown=1, patience=10)
    await lose(breaker, 1)

    async def hang() -> None:
        async with breaker.permit(5.0):
            await asyncio.sleep(30)

    probe = asyncio.create_task(hang())
    await asyncio.sleep(0.1)
    probe.cancel()
    await answer(breaker, 5.0)
    assert not breaker.is_open


async def test_a_call_waits_no_longer_than_it_may():
    breaker = CircuitBreaker(threshold=1, cooldown=10, max_cooldown=10, patience=10)
    await lose(breaker, 1)
    with pytest.raises(OperatorEndpointError, match=r"^The operator endpoint has been down for \d+ s\.$"):
        await answer(breaker, 0.05)


async def test_after_a_long_outage_calls_fail_at_once():
    breaker = CircuitBreaker(threshold=1, cooldown=10, max_cooldown=10, patience=0.05)
    await lose(breaker, 1)
    await asyncio.sleep(0.06)
    with pytest.raises(OperatorEndpointError, match="has been down"):
        await asyncio.wait_for(answer(breaker, 60), timeout=1)


async def test_calls_wait_out_an_outage_and_all_succeed(endpoint, make_pool):
    """While it lasts, the endpoint sees a few attempts and then single probes, not every call."""
    endpoint.behaviour = c.status(503)
    pool = make_pool(breaker_threshold=5, breaker_cooldown=0.05, max_concurrency=8)
    calls = [asyncio.create_task(pool.call("AnswerGenerate", f"q{number}")) for number in range(50)]
    await asyncio.sleep(0.5)
    during = len(endpoint.bodies)
    endpoint.behaviour = c.result("Paris")
    results = await asyncio.gather(*calls)
    assert all(result.text == "Paris" for result in results)
    assert during < 30
