"""A circuit breaker: while the endpoint is down nobody calls it, but for one probe at a time.

Those of libraries (aiobreaker, purgatory) raise while they are open; here a call waits for the probe, in its deadline.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from workflow_r1.services.errors import OperatorEndpointError

logger = logging.getLogger(__name__)


class BreakerOpenedError(Exception):
    """The breaker opened between the permit and the request: ask for a new permit."""


class Permit:
    """The breaker's word that a request may be made; good while it holds."""

    def __init__(self, breaker: "CircuitBreaker", is_probe: bool) -> None:
        self._breaker, self.is_probe = breaker, is_probe

    def confirm(self) -> None:
        """Right before the request, if anything was waited for since.

        Raises:
            BreakerOpenedError: let it leave the permit's block.
        """
        if self._breaker.is_open and not self.is_probe:
            raise BreakerOpenedError


class CircuitBreaker:
    """Opens after `threshold` requests in a row were lost to an outage, closes at the first answer.

    Args:
        threshold: requests in a row.
        cooldown: seconds from opening to the first probe; doubles with each failed one.
        max_cooldown: its bound.
        patience: seconds. A call waits out an outage this long; once the endpoint has been down for
            longer, calls fail at once (probes aside), so that a dead endpoint does not hold up a
            queue of calls for `patience` each.
        service: what is down, for messages.
    """

    def __init__(
        self,
        threshold: int,
        cooldown: float,
        max_cooldown: float,
        patience: float,
        service: str = "The operator endpoint",
    ) -> None:
        self._threshold, self._first_cooldown, self._max_cooldown = threshold, cooldown, max(cooldown, max_cooldown)
        self._patience, self._service = patience, service
        self._lost_in_a_row = 0
        self._down_since: float | None = None
        self._cooldown = cooldown
        self._next_probe = 0.0
        self._probing = False
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._down_since is not None

    @asynccontextmanager
    async def permit(self, seconds: float) -> AsyncIterator[Permit]:
        """Hold this while making one request; entering it waits while the breaker is open.

        The `OperatorEndpointError` that leaves the block, if any, tells how the endpoint is.

        Raises:
            OperatorEndpointError: the breaker did not close within `seconds`.
        """
        is_probe = await self._admission(seconds)
        try:
            yield Permit(self, is_probe)
        except OperatorEndpointError as error:
            if error.outage:
                self._lost(is_probe)
            else:
                self._answered()
            raise
        else:
            self._answered()
        finally:
            if is_probe:  # also when it was cancelled
                self._probing = False
                self._notify()

    async def _admission(self, seconds: float) -> bool:
        """Wait until a request may be made; True where it is the probe."""
        give_up = _now() + seconds
        while self._down_since is not None:
            if _now() >= self._next_probe and not self._probing:
                self._probing = True
                return True
            until = min(give_up, self._down_since + self._patience)
            if _now() >= until:
                down = _now() - self._down_since
                raise OperatorEndpointError(f"{self._service} has been down for {down:.0f} s.")
            changed = self._changed
            with anyio.move_on_after((until if self._probing else min(until, self._next_probe)) - _now()):
                await changed.wait()
        return False

    def _lost(self, is_probe: bool) -> None:
        self._lost_in_a_row += 1
        if self._down_since is None and self._lost_in_a_row >= self._threshold:
            logger.warning("%s is down: calls pause, and it is probed again.", self._service)
            self._down_since, self._cooldown = _now(), self._first_cooldown
            self._next_probe = _now() + self._cooldown
        elif is_probe:
            self._cooldown = min(2 * self._cooldown, self._max_cooldown)
            self._next_probe = _now() + self._cooldown

    def _answered(self) -> None:
        self._lost_in_a_row = 0
        if self._down_since is not None:
            logger.warning("%s is back after %.1f s.", self._service, _now() - self._down_since)
            self._down_since = None
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _now() -> float:
    return asyncio.get_running_loop().time()
