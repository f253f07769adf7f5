"""Replies kept on disk, so that the same request is paid for once."""

import asyncio
import hashlib
import json
import logging
import sqlite3
from pathlib import Path
from threading import Lock

from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.request import ChatRequest, Completes, Tally
from workflow_r1.services.settings import OperatorSettings
from workflow_r1.services.single_flight import SingleFlight

logger = logging.getLogger(__name__)

FILE = "replies.db"

_BUSY_SECONDS = 5.0
_BYTES = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_DELETE_FIRST = "DELETE FROM replies WHERE rowid IN (SELECT rowid FROM replies ORDER BY rowid LIMIT 10)"
_FAULTS = (sqlite3.Error, OSError, UnicodeError)


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
            self._writer = _open(directory / FILE)
            self._writer.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
            self._reader = _open(directory / FILE)  # its own, so that the event loop waits for no writer
        except _FAULTS as error:
            raise OperatorConfigError(
                f"The operator cache {directory} cannot be opened ({error}): delete it, or name another "
                "workflow_r1.operators.cache_dir."
            ) from error
        self._size_limit, self._writable = size_limit, writable
        self._writing = Lock()

    @classmethod
    def of(cls, settings: OperatorSettings) -> "ReplyCache | None":
        """The cache that the settings ask for, or None where it is off."""
        if settings.cache == "off":
            return None
        return cls(settings.cache_dir, settings.cache_bytes, writable=settings.cache == "on")

    def get(self, key: str) -> str | None:
        """The reply under `key`, or None. Takes some tens of microseconds."""
        try:
            found = self._reader.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        except _FAULTS as error:
            logger.warning("The operator cache could not be read: %s", error)
            return None
        return found[0] if found and isinstance(found[0], str) else None

    async def put(self, key: str, reply: str) -> None:
        """Keep `reply`; an empty one is not worth keeping."""
        if not self._writable or not reply:
            return
        try:
            await asyncio.to_thread(self._store, key, reply)
        except _FAULTS as error:
            logger.warning("The operator cache could not be written: %s", error)

    def _store(self, key: str, reply: str) -> None:
        """Keep `reply`, and let those go that were stored first while there are too many."""
        with self._writing, self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute("REPLACE INTO replies VALUES (?, ?)", (key, reply))
            while self._writer.execute(_BYTES).fetchone()[0] > self._size_limit:
                if not self._writer.execute(_DELETE_FIRST).rowcount:
                    break


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


def _open(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")  # readers and a writer at once, in any number of processes
    database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last replies, and nothing else
    return database
