"""Identical work under way at once is done once."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any


@dataclass
class _Flight:
    task: asyncio.Task[str]
    callers: int = 0


class SingleFlight:
    """Lets callers with the same key share one run of the work. Belongs to one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}

    async def run(self, key: str, work: Callable[[], Coroutine[Any, Any, str]]) -> tuple[str, bool]:
        """The outcome of `work`, and whether another caller had started it.

        A caller that is cancelled leaves the others undisturbed; the last one takes the work with
        it. What the work raises, every caller gets.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(work()))
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task), joined
        finally:
            flight.callers -= 1
            if flight.callers == 0:
                flight.task.cancel()  # nothing to a task that has ended
                if self._flights.get(key) is flight:
                    del self._flights[key]
