"""Admission to a service: how many requests at once and how many a minute, fair between trajectories.

Libraries (aiolimiter, limits) serve who came first, and give no token back that a request turned out not to take.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol

from pydantic import BaseModel, Field

_REACH = 5.0  # seconds


class Limits(BaseModel):
    """How much may be asked of a service.

    Attributes:
        max_concurrency: requests in flight at once.
        requests_per_minute: in any 60 seconds, retries included.
        tokens_per_minute: in any 60 seconds, prompt and completion together.
    """

    max_concurrency: int = Field(default=256, ge=1, le=1000)  # the openai client opens 1,000 connections at most
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class Slot:
    """The right to make one request; `release` it when the request has ended.

    Attributes:
        used: whether the request was made; set it before.
        tokens: what counts towards the limit: at first the bound that was asked for, after the
            reply what it really took.
    """

    def __init__(self, tokens: int, release: Callable[["Slot"], None]) -> None:
        self.tokens = tokens
        self.used = False
        self._release = release

    def release(self) -> None:
        self._release(self)


class Admission(Protocol):
    """Hands out slots: a `Limiter`, or one that a run's processes share."""

    async def acquire(self, trajectory: str, tokens: int) -> Slot:
        """Wait for a slot.

        Args:
            trajectory: whose request it is; the waiting trajectories take turns.
            tokens: no fewer than the request can take, prompt and completion together.
        """
        ...


class Limiter:
    """Keeps `Limits`. Belongs to one event loop.

    A request counts while it is in flight and for a minute after it reached the service. When that was is not known:
    it was before its reply, and at most 5 s after the slot was granted. So no 60 seconds at the service can hold more
    than the limit, however long requests take to get there within these 5 s.

    Args:
        window: seconds in a minute; shorter in tests.
    """

    def __init__(self, limits: Limits, window: float = 60.0) -> None:
        self._limits, self._window = limits, window
        self._queues: OrderedDict[str, deque[tuple[asyncio.Future[Slot], int]]] = OrderedDict()
        self._in_flight = 0
        self._requests = 0  # in flight, or within the last minute
        self._tokens = 0  # of these

    async def acquire(self, trajectory: str, tokens: int) -> Slot:
        """As `Admission.acquire`. A request bigger than a minute's tokens waits until it is the only one."""
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        tokens = min(tokens, self._limits.tokens_per_minute or tokens)
        self._queues.setdefault(trajectory, deque()).append((future, tokens))
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().release()
            raise

    def _serve(self) -> None:
        while self._queues:
            trajectory, queue = next(iter(self._queues.items()))
            future, tokens = queue[0]
            if not future.done() and not self._has_room(tokens):
                return  # nobody overtakes: a big request would never find room
            queue.popleft()
            self._queues.move_to_end(trajectory)
            if not queue:
                del self._queues[trajectory]
            if not future.done():
                future.set_result(self._grant(tokens))

    def _has_room(self, tokens: int) -> bool:
        limits = self._limits
        return (
            self._in_flight < limits.max_concurrency
            and (limits.requests_per_minute is None or self._requests < limits.requests_per_minute)
            and (limits.tokens_per_minute is None or self._tokens + tokens <= limits.tokens_per_minute)
        )

    def _grant(self, reserved: int) -> Slot:
        loop = asyncio.get_running_loop()
        granted = loop.time()
        self._in_flight += 1
        self._requests += 1
        self._tokens += reserved

        def release(slot: Slot) -> None:
            self._in_flight -= 1
            self._tokens += slot.tokens - reserved
            forget_at = min(loop.time(), granted + _REACH) + self._window
            if slot.used and self._counts_minutes:
                loop.call_at(forget_at, self._forget, slot.tokens)
                self._serve()
            else:
                self._forget(slot.tokens)

        return Slot(reserved, release)

    @property
    def _counts_minutes(self) -> bool:
        return self._limits.requests_per_minute is not None or self._limits.tokens_per_minute is not None

    def _forget(self, tokens: int) -> None:
        self._requests -= 1
        self._tokens -= tokens
        self._serve()
