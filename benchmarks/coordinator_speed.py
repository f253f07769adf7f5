"""Permits to ask an endpoint: the run's coordinator over TCP against the same limiter in a named Ray actor.

    python benchmarks/coordinator_speed.py

1,024 trajectories in two processes ask for a slot, hold it for the 0.9 s of a call and give it back, for 10 s, with the
two coordinators in turns; there are slots for all. The actor's clients gather what they have to say while a call is
under way. Saves results/coordinator_speed.json beside this file: slots a second, how long a slot was waited for, and
the processor time that all processes together took for one.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import ray

from workflow_r1.services.coordinator import RunCoordinator
from workflow_r1.services.limiter import Limiter, Limits, Slot
from workflow_r1.services.run_connection import RunConnection

PROCESSES, TRAJECTORIES = 2, 512  # trajectories a process
HOLD, SECONDS, ROUNDS = 0.9, 10.0, 3
LIMITS = Limits.model_construct(max_concurrency=PROCESSES * TRAJECTORIES)  # more than one service's clients can use
Acquire = Callable[[str], Awaitable[Callable[[], None]]]
"""Waits for a slot for a trajectory, and gives back what ends it."""


@ray.remote(num_cpus=0, max_concurrency=64)
class CoordinatorActor:
    """The limiter, and the slots that are held, by number."""

    def __init__(self) -> None:
        self._limiter = Limiter(LIMITS)
        self._held: dict[tuple[int, int], Slot] = {}

    async def exchange(self, client: int, ended: list[int], wanted: list[tuple[int, str]]) -> list[int]:
        """Ends slots, and returns the numbers of those wanted once they are all there."""
        for number in ended:
            self._held.pop((client, number)).finish(used=True, tokens=1)
        slots = await asyncio.gather(*(self._limiter.acquire(trajectory, 1) for _, trajectory in wanted))
        for (number, _), slot in zip(wanted, slots, strict=True):
            self._held[client, number] = slot
        return [number for number, _ in wanted]


class ActorClient:
    """What one process has to say to the actor: gathered while a call is under way."""

    def __init__(self) -> None:
        self._actor, self._client = ray.get_actor("coordinator"), os.getpid()
        self._numbers = itertools.count()
        self._ended: list[int] = []
        self._wanted: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._sending: asyncio.Task[None] | None = None

    async def acquire(self, trajectory: str) -> Callable[[], None]:
        number, granted = next(self._numbers), asyncio.get_running_loop().create_future()
        self._wanted[number] = (trajectory, granted)
        self._send()
        await granted
        return lambda: self._finish(number)

    def _finish(self, number: int) -> None:
        self._ended.append(number)
        self._send()

    def _send(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._exchange())

    async def _exchange(self) -> None:
        while self._wanted or self._ended:
            (wanted, self._wanted), (ended, self._ended) = (self._wanted, {}), (self._ended, [])
            asked = [(number, trajectory) for number, (trajectory, _) in wanted.items()]
            for number in await self._actor.exchange.remote(self._client, ended, asked):
                wanted[number][1].set_result(None)


async def ask(acquire: Acquire, name: str) -> list[float]:
    """The seconds that each slot was waited for by trajectories that each make one request after the other."""
    waits: list[float] = []
    end = time.monotonic() + SECONDS

    async def trajectory(number: int) -> None:
        await asyncio.sleep(HOLD * number / TRAJECTORIES)  # calls do not come all at once
        while (asked := time.monotonic()) < end:
            finish = await acquire(f"{name}/{number}")
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(HOLD)
            finish()

    await asyncio.gather(*(trajectory(number) for number in range(TRAJECTORIES)))
    return waits


def over_tcp(folder: str) -> list[float]:
    async def run() -> list[float]:
        connection = RunConnection(Path(folder), patience=10)

        async def acquire(trajectory: str) -> Callable[[], None]:
            slot = await connection.acquire("main", trajectory, 1)
            return lambda: slot.finish(used=True, tokens=1)

        waits = await ask(acquire, str(os.getpid()))
        await connection.aclose()
        return waits

    return asyncio.run(run())


def over_ray(address: str) -> list[float]:
    ray.init(address, namespace="benchmark", log_to_driver=False)

    async def run() -> list[float]:
        return await ask(ActorClient().acquire, str(os.getpid()))

    return asyncio.run(run())


def processor_seconds() -> float:
    """Of this process and of all that it has started, ended ones included."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in [own, *own.children(recursive=True)])


def measure(work: Callable[[str], list[float]], argument: str) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as processes:
        processes.map(time.sleep, [0.1] * PROCESSES)  # they have imported all that they need
        before = processor_seconds()
        waits = sorted(itertools.chain(*processes.map(work, [argument] * PROCESSES, chunksize=1)))
        spent = processor_seconds() - before
    return {
        "slots_per_s": len(waits) / SECONDS,
        "wait_ms_p50": 1000 * statistics.median(waits),
        "wait_ms_p99": 1000 * waits[int(0.99 * len(waits))],
        "processor_ms_per_slot": 1000 * spent / len(waits),
    }


def main() -> None:
    rounds: dict[str, list[dict[str, float]]] = {"tcp": [], "ray": []}
    address = ray.init(num_cpus=4, include_dashboard=False, namespace="benchmark", log_to_driver=False)["address"]
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder, RunCoordinator(Path(folder), {"main": LIMITS}):
            rounds["tcp"].append(measure(over_tcp, folder))
        actor = CoordinatorActor.options(name="coordinator").remote()
        rounds["ray"].append(measure(over_ray, address))
        ray.kill(actor)
    medians = {
        kind: {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}
        for kind, found in rounds.items()
    }
    result = {"machine": platform.processor() or platform.machine(), "rounds": ROUNDS, **medians}
    print(json.dumps(result, indent=2))
    path = Path(__file__).parent / "results" / "coordinator_speed.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
