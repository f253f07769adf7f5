"""Many calls at once: limits, deadlines, cancellation, and a bad endpoint with an outage."""

import asyncio
import random

import pytest
import support.faulty_endpoint as c

from workflow_r1.operators import RunCoordinator
from workflow_r1.policy.scripted_session import ScriptedSession
from workflow_r1.rollout import RolloutLimits, rollout
from workflow_r1.trajectory import EndedBy


async def test_256_trajectories_call_at_once(endpoint, make_pool):
    endpoint.behaviour = c.together(256)
    pool = make_pool(max_concurrency=256)
    results = await asyncio.gather(*(pool.call("AnswerGenerate", f"q{number}") for number in range(256)))
    assert not any(result.failed for result in results)
    assert endpoint.most_in_flight == 256


async def test_the_concurrency_limit_holds_and_is_served_in_order(endpoint, make_pool):
    async def slow(request, body):
        await asyncio.sleep(0.05)
        return await c.result("Paris")(request, body)

    endpoint.behaviour = slow
    pool = make_pool(max_concurrency=2)
    await asyncio.gather(*(pool.call("AnswerGenerate", f"q{number}") for number in range(20)))
    assert endpoint.most_in_flight == 2
    asked = [int(body["messages"][1]["content"].split("\n")[1][1:]) for body in endpoint.bodies]
    assert all(abs(number - place) <= 1 for place, number in enumerate(asked))  # two in flight may swap


async def test_waiting_for_a_slot_does_not_count_towards_the_deadline(endpoint, make_pool):
    async def slow(request, body):
        await asyncio.sleep(0.1)
        return await c.result("Paris")(request, body)

    endpoint.behaviour = slow
    pool = make_pool(max_concurrency=1, call_timeout=0.3)
    results = await asyncio.gather(*(pool.call("AnswerGenerate", "q") for _ in range(5)))
    assert not any(result.failed for result in results)
    assert max(result.seconds for result in results) > 0.4


async def test_a_cancelled_call_gives_its_slot_back(endpoint, make_pool):
    pool = make_pool(max_concurrency=1)
    endpoint.script.append(c.hang)
    call = asyncio.create_task(pool.call("AnswerGenerate", "q"))
    await endpoint.asked.wait()
    call.cancel()
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"


@pytest.mark.parametrize("coordinated", [False, True])
async def test_a_trajectorys_deadline_calls_its_requests_off_and_gives_their_slots_back(
    endpoint, make_pool, tmp_path, coordinated: bool
):
    pool = make_pool(max_concurrency=2, run_dir=tmp_path if coordinated else None)
    endpoint.script += [c.hang, c.result("Paris")]
    calls = "<tool>AnswerGenerate: one</tool><tool>AnswerGenerate: two</tool>"
    session = ScriptedSession(iter([f"<think>ask</think>{calls}"]))
    tasks = asyncio.all_tasks()
    with RunCoordinator(tmp_path, pool.settings.limits):
        trajectory = await rollout("q", session, pool, RolloutLimits(max_seconds=1.0, max_parallel_calls=2))
        assert (trajectory.ended_by, len(endpoint.bodies)) == (EndedBy.DEADLINE, 2)
        left = {task for task in asyncio.all_tasks() - tasks if "workflow_r1" in repr(task)}
        assert all("RunConnection._listen" in repr(task) for task in left)  # which stays for the next call
        results = await asyncio.gather(*(pool.call("AnswerGenerate", f"q{number}") for number in range(2)))
    assert [result.text for result in results] == ["Paris", "Paris"]  # there were two slots, and both are there again


async def test_no_call_is_lost_to_a_bad_endpoint_and_its_outage(endpoint, make_pool):
    """A fifth of the requests refused, 8 % hang, break or drop, and for a while nothing is answered at all."""
    rng, started = random.Random(0), asyncio.get_running_loop().time()
    faults = [c.status(429), c.status(500), c.hang, c.truncated_json, c.dropped, c.result("Paris")]

    async def bad(request, body):
        if 0.2 < asyncio.get_running_loop().time() - started < 0.6:
            return await c.status(503)(request, body)
        (behaviour,) = rng.choices(faults, (10, 10, 3, 3, 2, 72))
        return await behaviour(request, body)

    endpoint.behaviour = bad
    pool = make_pool(attempt_timeout=1.0, breaker_cooldown=0.05, max_concurrency=20, max_retries=20)

    async def trajectory(number: int) -> list[str]:
        return [(await pool.call("AnswerGenerate", f"{number} {turn}", f"{number}")).text for turn in range(4)]

    texts = await asyncio.gather(*(trajectory(number) for number in range(40)))
    assert texts == [["Paris"] * 4] * 40
    usage = pool.usage.total
    assert (usage.calls, usage.failed, usage.requests) == (160, 0, len(endpoint.bodies))
    assert usage.retries == usage.requests - 160
