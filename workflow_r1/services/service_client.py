"""Asking a service: within its limits, with deadlines and retries, and not at all while it is down.

The retries are ours rather than the openai client's because one deadline spans them all, the wait
for a slot does not count towards it, the breaker sees every attempt, and truncated JSON is retried
too.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from workflow_r1.services.breaker import BreakerOpenedError, CircuitBreaker
from workflow_r1.services.errors import OperatorEndpointError
from workflow_r1.services.faults import Wording, request_fault
from workflow_r1.services.limiter import Admission
from workflow_r1.services.request import ChatRequest, Reply, Tally
from workflow_r1.services.service import ServiceSettings

logger = logging.getLogger(__name__)


class ServiceClient(ABC):
    """Makes requests to one service. Belongs to the event loop that it is first used in.

    Args:
        admission: where a slot is had for each request.
    """

    def __init__(self, service: ServiceSettings, admission: Admission, wording: Wording) -> None:
        self._service, self._admission, self._wording = service, admission, wording
        self._breaker = CircuitBreaker(
            service.breaker_threshold,
            service.breaker_cooldown,
            service.max_backoff,
            service.call_timeout,
            wording.service,
        )

    @abstractmethod
    async def _request(self, request: ChatRequest) -> Reply:
        """Make one request; whatever it raises is a fault of it."""

    @abstractmethod
    async def aclose(self) -> None: ...

    async def complete(self, request: ChatRequest, tally: Tally) -> str:
        """The text of the reply.

        Raises:
            OperatorEndpointError: it could not be had within the retries and the call's deadline.
        """
        service, clock, retries = self._service, _Stopwatch(), 0
        while True:
            try:
                return await self._attempt(request, tally, clock)
            except BreakerOpenedError:
                continue
            except OperatorEndpointError as error:
                fault = error
            pause = self._pause(retries, fault.retry_after)
            late = clock.seconds + pause >= service.call_timeout
            if not fault.retryable or retries >= service.max_retries or late:
                logger.debug("gave up after %d retries: %s", retries, fault)
                raise fault
            logger.debug("retry in %.2f s: %s", pause, fault)
            await asyncio.sleep(pause)
            retries += 1
            tally.retries += 1

    async def _attempt(self, request: ChatRequest, tally: Tally, clock: "_Stopwatch") -> str:
        service = self._service
        # The breaker comes first, so that calls wait out an outage without holding slots.
        async with self._breaker.permit(service.call_timeout - clock.seconds) as permit:
            with clock.stopped():
                slot = await self._admission.acquire(request.trajectory, request.most_tokens)
            used, tokens = False, None
            try:
                permit.confirm()
                tally.requests += 1
                used = True
                seconds = min(service.attempt_timeout, service.call_timeout - clock.seconds)
                reply = await self._timed(request, seconds)
            except OperatorEndpointError as fault:
                if fault.status is not None:
                    tokens = 0  # refused; without an answer nobody knows what was generated
                raise
            else:
                tokens = reply.tokens or None  # not all count them
                tally.count(reply)
                if reply.fault is not None:
                    raise reply.fault
                return reply.text
            finally:
                slot.finish(used, tokens)

    async def _timed(self, request: ChatRequest, seconds: float) -> Reply:
        try:
            with anyio.fail_after(seconds):
                return await self._request(request)
        except OperatorEndpointError:
            raise
        except Exception as error:  # the openai transport lets some of aiohttp's own exceptions through
            fault = request_fault(error, self._wording)
        # Outside the handler, for the original exception holds the request and with it the key.
        raise fault

    def _pause(self, retries: int, retry_after: float | None) -> float:
        """Exponential backoff with jitter, so that calls that failed together do not return together."""
        # 2**retries overflows a float after a thousand retries.
        pause = min(self._service.backoff * 2 ** min(retries, 30), self._service.max_backoff)
        return random.uniform(0.5, 1.0) * pause if retry_after is None else retry_after + random.uniform(0, 0.5) * pause


class _Stopwatch:
    """Seconds since it was made, less those while stopped."""

    def __init__(self) -> None:
        self._started = _now()

    @property
    def seconds(self) -> float:
        return _now() - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        at = _now()
        try:
            yield
        finally:
            self._started += _now() - at


def _now() -> float:
    return asyncio.get_running_loop().time()
