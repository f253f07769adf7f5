"""The one place where all processes of a run keep their limits and add up what they spend.

A process of the run hosts it; the others find its address in the run's folder and hold one connection each, over which
lines of JSON go:

    to it:    the secret from the address file, once
              {"acquire": [number, service, trajectory, tokens]}
              {"release": [number, used, tokens]}           a slot, or a place in the queue
              {"result": {...}}                             an `OperatorResult` without its text
    from it:  {"granted": number}, {"refused": number}      an unknown service

Slots belong to their connection: those of a process that dies are free again. Prompts, replies and keys never pass.
"""

import asyncio
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.ledger import Budget, RunLedger
from workflow_r1.services.limiter import Limiter, Limits, Slot
from workflow_r1.services.result import OperatorResult
from workflow_r1.system.files import made_whole

logger = logging.getLogger(__name__)

T = TypeVar("T")

ADDRESS_FILE, LEDGER_FILE = "coordinator.json", "ledger.json"


class RunCoordinator:
    """Keeps a run's limits and ledger, from a thread of this process, until it is closed.

    Args:
        folder: the run's own; processes on other machines need to see it too.
        limits: by service, as `OperatorSettings.limits` gives them.
        host: the address to listen on; one that other machines reach where the run has several.
        window: seconds in a minute; shorter in tests.

    Attributes:
        ledger: what the run has spent.

    Raises:
        OperatorConfigError: the folder cannot be written, or the ledger in it cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        limits: Mapping[str, Limits],
        budget: Budget | None = None,
        host: str = "127.0.0.1",
        window: float = 60.0,
    ) -> None:
        self._folder, self._limits, self._host, self._window = folder, dict(limits), host, window
        self._secret = secrets.token_hex(16)
        self._connections: set[asyncio.Task[None]] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.ledger = RunLedger(folder / LEDGER_FILE, budget or Budget())
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="operator-coordinator", daemon=True)
            self._thread.start()
            self._server = self._in_thread(self._listen())
            self._publish()
        except OSError as error:
            raise OperatorConfigError(
                f"The operators of the run cannot be coordinated in {folder}: {error.strerror or error}."
            ) from None

    def _in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> asyncio.Server:
        self._limiters = {name: Limiter(limits, self._window) for name, limits in self._limits.items()}
        return await asyncio.start_server(self._serve, self._host, 0, backlog=1024)

    def _publish(self) -> None:
        port = self._server.sockets[0].getsockname()[1]
        with made_whole(self._folder / ADDRESS_FILE) as unfinished:
            unfinished.touch(mode=0o600)
            address = {"host": self._host, "port": port, "secret": self._secret}
            unfinished.write_text(json.dumps(address), encoding="utf-8")

    def close(self) -> None:
        """Save the ledger and end; calls that are under way in other processes fail."""
        if self._loop.is_closed():
            return
        (self._folder / ADDRESS_FILE).unlink(missing_ok=True)
        self._in_thread(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.ledger.save()

    async def _stop(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def __enter__(self) -> "RunCoordinator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        slots = _Slots(self._limiters, writer)
        try:
            if not hmac.compare_digest((await reader.readline()).strip(), self._secret.encode()):
                return
            async for line in reader:
                self._handle(json.loads(line), slots)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception:  # a broken line must not take the other connections with it
            logger.exception("A connection to the operator coordinator is closed")
        finally:
            self._connections.discard(task)
            slots.release_all()
            writer.close()

    def _handle(self, message: dict[str, Any], slots: "_Slots") -> None:
        if "acquire" in message:
            slots.acquire(*message["acquire"])
        elif "release" in message:
            slots.release(*message["release"])
        else:
            self.ledger.add(OperatorResult(text="", **message["result"]))


class _Slots:
    """What one connection holds or waits for, by number."""

    def __init__(self, limiters: Mapping[str, Limiter], writer: asyncio.StreamWriter) -> None:
        self._limiters, self._writer = limiters, writer
        self._held: dict[int, Slot] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}

    def acquire(self, number: int, service: str, trajectory: str, tokens: int) -> None:
        if service in self._limiters:
            self._waiting[number] = asyncio.create_task(self._wait(number, service, trajectory, tokens))
        else:
            self._send({"refused": number})

    async def _wait(self, number: int, service: str, trajectory: str, tokens: int) -> None:
        try:
            self._held[number] = await self._limiters[service].acquire(trajectory, tokens)
        finally:
            del self._waiting[number]
        self._send({"granted": number})

    def release(self, number: int, used: bool, tokens: int | None) -> None:
        if number in self._waiting:
            self._waiting[number].cancel()
        elif slot := self._held.pop(number, None):
            slot.finish(used, tokens)

    def release_all(self) -> None:
        for task in self._waiting.values():
            task.cancel()
        for slot in self._held.values():
            slot.finish(used=True)  # nobody knows
        self._held.clear()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(ConnectionError):
            self._writer.write(json.dumps(message).encode() + b"\n")
