"""Admission to a service: how many requests at once and how many a minute, fair between trajectories.

Libraries (aiolimiter, limits) serve who came first, and give no token back that a request turned out not to take.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
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


class Slot(Protocol):
    """The right to make one request."""

    def finish(self, used: bool, tokens: int | None = None) -> None:
        """Give it back, once.

        Args:
            used: whether the request reached the service, or may have.
            tokens: what it really took, prompt and completion together; None where nobody knows, so that the bound
                that was asked for counts.
        """
        ...


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
                future.result().finish(used=False)
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

    def _grant(self, tokens: int) -> "_GrantedSlot":
        self._in_flight += 1
        self._requests += 1
        self._tokens += tokens
        return _GrantedSlot(self, tokens, asyncio.get_running_loop().time())

    def _finish(self, slot: "_GrantedSlot", used: bool, tokens: int) -> None:
        loop = asyncio.get_running_loop()
        self._in_flight -= 1
        self._tokens += tokens - slot.tokens
        if used and self._counts_minutes:
            loop.call_at(min(loop.time(), slot.granted + _REACH) + self._window, self._forget, tokens)
            self._serve()
        else:
            self._forget(tokens)

    @property
    def _counts_minutes(self) -> bool:
        return self._limits.requests_per_minute is not None or self._limits.tokens_per_minute is not None

    def _forget(self, tokens: int) -> None:
        self._requests -= 1
        self._tokens -= tokens
        self._serve()


@dataclass(frozen=True)
class _GrantedSlot:
    """A slot of `limiter` with `tokens` reserved, granted at that time of the event loop."""

    limiter: Limiter
    tokens: int
    granted: float

    def finish(self, used: bool, tokens: int | None = None) -> None:
        self.limiter._finish(self, used, self.tokens if tokens is None else tokens)
