import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.virtual_time import run_in_virtual_time

from workflow_r1.services.limiter import Limiter, Limits


@dataclass
class Visit:
    """One request as the service sees it."""

    arrived: float
    ended: float
    tokens: int
    trajectory: str


def most_in_a_minute(visits: list[Visit]) -> tuple[int, int]:
    """The most requests and tokens of any 60 seconds."""
    minutes = [[other for other in visits if visit.arrived - 60 < other.arrived <= visit.arrived] for visit in visits]
    return max(map(len, minutes)), max(sum(visit.tokens for visit in minute) for minute in minutes)


def most_at_once(visits: list[Visit]) -> int:
    return max(sum(other.arrived <= visit.arrived < other.ended for other in visits) for visit in visits)


async def visit(limiter: Limiter, visits: list[Visit], trajectory="t", reach=0.0, seconds=1.0, bound=10, tokens=None):
    """Make one request that takes `reach` seconds to get there and `seconds` to be answered."""
    now = asyncio.get_running_loop().time
    slot = await limiter.acquire(trajectory, bound)
    try:
        await asyncio.sleep(reach)
        arrived = now()
        await asyncio.sleep(seconds)
        visits.append(Visit(arrived, now(), bound if tokens is None else tokens, trajectory))
    finally:
        slot.finish(True, tokens)


requests = st.fixed_dictionaries(
    {
        "start": st.floats(0, 100),
        "trajectory": st.sampled_from("abc"),
        "reach": st.floats(0, 5),
        "seconds": st.floats(0.001, 90),
        "bound": st.integers(1, 60),
        "share": st.floats(0, 1),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(requests, min_size=1, max_size=25),
    max_concurrency=st.integers(1, 5),
    requests_per_minute=st.none() | st.integers(1, 8),
    tokens_per_minute=st.none() | st.integers(60, 150),
)
def test_no_sixty_seconds_at_the_service_hold_more_than_the_limits(
    requests, max_concurrency, requests_per_minute, tokens_per_minute
):
    limits = Limits(
        max_concurrency=max_concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    visits: list[Visit] = []

    async def one(limiter, start, share, bound, **request):
        await asyncio.sleep(start)
        await visit(limiter, visits, bound=bound, tokens=round(bound * share), **request)

    async def run():
        limiter = Limiter(limits)
        await asyncio.gather(*(one(limiter, **request) for request in requests))

    run_in_virtual_time(run())
    assert len(visits) == len(requests)
    assert most_at_once(visits) <= max_concurrency
    most_requests, most_tokens = most_in_a_minute(visits)
    assert most_requests <= (requests_per_minute or len(visits))
    assert most_tokens <= (tokens_per_minute or most_tokens)


def time_for(count: int, limits: Limits, **request) -> float:
    async def run() -> float:
        limiter = Limiter(limits)
        await asyncio.gather(*(visit(limiter, [], **request) for _ in range(count)))
        return asyncio.get_running_loop().time()

    return run_in_virtual_time(run())


def test_the_limits_are_made_use_of():
    assert time_for(10, Limits(max_concurrency=5)) == pytest.approx(2)
    # Thirty at once, thirty when these were answered a minute ago, and so on.
    assert time_for(90, Limits(requests_per_minute=30)) == pytest.approx(2 * 61 + 1)
    # What was asked for and not taken is free again with the reply: ten, eight and two, without waiting a minute.
    assert time_for(20, Limits(tokens_per_minute=100), bound=10, tokens=2) == pytest.approx(3)


def test_a_request_bigger_than_a_minutes_tokens_is_made_alone():
    visits: list[Visit] = []

    async def run():
        limiter = Limiter(Limits(tokens_per_minute=100))
        await asyncio.gather(visit(limiter, visits, bound=10_000, tokens=90), visit(limiter, visits, bound=50))

    run_in_virtual_time(run())
    assert [visit.arrived for visit in visits] == [0, pytest.approx(61)]


def test_trajectories_take_turns_however_many_requests_one_of_them_has():
    visits: list[Visit] = []

    async def run():
        limiter = Limiter(Limits(max_concurrency=1))
        greedy = [visit(limiter, visits, "greedy") for _ in range(10)]
        modest = [visit(limiter, visits, name) for name in ("first", "second", "second")]
        await asyncio.gather(*greedy, *modest)

    run_in_virtual_time(run())
    served = [visit.trajectory for visit in sorted(visits, key=lambda visit: visit.arrived)]
    # The first is under way before anybody else has come.
    assert served[:6] == ["greedy", "greedy", "first", "second", "greedy", "second"]
    assert served[6:] == ["greedy"] * 7


def test_a_slot_that_was_not_used_does_not_count():
    async def run() -> float:
        limiter = Limiter(Limits(requests_per_minute=1))
        for _ in range(5):
            (await limiter.acquire("t", 1)).finish(used=False)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(run()) == 0


def test_whoever_is_cancelled_leaves_its_place_to_the_next():
    async def run() -> None:
        limiter = Limiter(Limits(max_concurrency=1))
        held = await limiter.acquire("a", 1)
        waiting = [asyncio.create_task(limiter.acquire(name, 1)) for name in "bcd"]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
        await asyncio.sleep(0)
        held.finish(used=False)
        waiting[1].cancel()  # when it has just been granted
        slot = await asyncio.wait_for(waiting[2], timeout=1)
        slot.finish(used=False)

    run_in_virtual_time(run())
