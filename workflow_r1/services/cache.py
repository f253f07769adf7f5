"""Replies kept on disk, so that the same request is paid for once."""

import asyncio
import hashlib
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import diskcache

from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.request import ChatRequest, Completes, Tally
from workflow_r1.services.settings import OperatorSettings
from workflow_r1.services.single_flight import SingleFlight

logger = logging.getLogger(__name__)


class ReplyCache:
    """Reply texts by request, on disk, bounded in size, shared by the processes of a machine.

    Stores a hash of the request and the reply; never the prompt or the key. A fault of the disk or
    a lock held for too long is a miss, never an error.

    Raises:
        OperatorConfigError: it cannot be opened.
    """

    def __init__(self, directory: Path, size_limit: int, *, writable: bool = True) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._cache = diskcache.Cache(str(directory), disk=_TextDisk, size_limit=size_limit, timeout=5)
        except _FAULTS as error:
            raise OperatorConfigError(
                f"The operator cache {directory} cannot be opened ({error}): delete it, or name another "
                "workflow_r1.operators.cache_dir."
            ) from error
        self._writable = writable

    @classmethod
    def of(cls, settings: OperatorSettings) -> "ReplyCache | None":
        """The cache that the settings ask for, or None where it is off."""
        if settings.cache == "off":
            return None
        return cls(settings.cache_dir, settings.cache_bytes, writable=settings.cache == "on")

    def get(self, key: str) -> str | None:
        """The reply under `key`, or None. Takes some tens of microseconds."""
        try:
            return self._cache.get(key)
        except _FAULTS as error:
            logger.warning("The operator cache could not be read: %s", error)
            return None

    async def put(self, key: str, reply: str) -> None:
        """Keep `reply`; an empty one is not worth keeping."""
        if not self._writable or not reply:
            return
        try:
            await asyncio.to_thread(self._cache.set, key, reply)
        except _FAULTS as error:
            logger.warning("The operator cache could not be written: %s", error)


class CachingClient:
    """Answers a request that it has seen from the cache, and makes identical ones under way at once.

    Only requests at temperature 0 are seen to be alike unless `cache_sampled`.

    Args:
        client: answers the others.
        address: what tells the client's service from any other.
    """

    def __init__(self, client: Completes, cache: ReplyCache, address: str, cache_sampled: bool) -> None:
        self._client, self._cache, self._address, self._cache_sampled = client, cache, address, cache_sampled
        self._flights = SingleFlight()

    async def complete(self, request: ChatRequest, tally: Tally) -> str:
        """As `ServiceClient.complete`."""
        if request.temperature > 0 and not self._cache_sampled:
            return await self._client.complete(request, tally)
        key = request_key(self._address, request)
        reply = self._cache.get(key)
        if reply is not None:
            tally.cache_hits += 1
            return reply
        reply, joined = await self._flights.run(key, lambda: self._fetch(key, request, tally))
        tally.cache_hits += joined
        return reply

    async def _fetch(self, key: str, request: ChatRequest, tally: Tally) -> str:
        reply = await self._client.complete(request, tally)
        await self._cache.put(key, reply)
        return reply

    async def aclose(self) -> None:
        await self._client.aclose()


def request_key(address: str, request: ChatRequest) -> str:
    """SHA-256 over the service, the request's body (model, messages, sampling) and the sample's index."""
    content = json.dumps([address, request.body(), request.sample], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class _TextDisk(diskcache.Disk):
    """Reads text only: diskcache would unpickle, and so run, whatever someone put into the file."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == diskcache.core.MODE_PICKLE:
            raise OSError("an entry is not text")
        return super().fetch(mode, filename, value, read)


_FAULTS = (diskcache.Timeout, sqlite3.Error, OSError)
