"""A process's connection to the coordinator of its run."""

import asyncio
import itertools
import json
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workflow_r1.services.coordinator import ADDRESS_FILE
from workflow_r1.services.errors import OperatorEndpointError
from workflow_r1.services.limiter import Slot
from workflow_r1.services.result import OperatorResult

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.2  # seconds


class RunConnection:
    """Opened when it is first needed, and again when it was lost. Belongs to one event loop.

    Args:
        folder: the run's own, where the coordinator leaves its address.
        patience: seconds to wait for a coordinator.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._folder, self._patience = folder, patience
        self._opening: asyncio.Task[None] | None = None
        self._absent_until = 0.0
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None

    async def acquire(self, service: str, trajectory: str, tokens: int) -> Slot:
        """As `Admission.acquire`.

        Raises:
            OperatorEndpointError: there is no coordinator, or it does not know the service.
        """
        await self._open()
        number = next(self._numbers)
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = granted
        self.send({"acquire": [number, service, trajectory, tokens]})
        slot = _RemoteSlot(self, number)
        try:
            await granted
        except asyncio.CancelledError:
            slot.finish(used=False)
            raise
        finally:
            self._waiting.pop(number, None)
        return slot

    async def record(self, result: OperatorResult) -> None:
        """Put a result into the run's ledger; where it cannot be, that is logged."""
        fields = asdict(result)
        del fields["text"]
        try:
            await self._open()
        except OperatorEndpointError as error:
            logger.warning("A call is missing in the run's ledger. %s", error)
        else:
            self.send({"result": fields})

    async def aclose(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener

    async def _open(self) -> None:
        if self._writer is not None:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
        await asyncio.shield(self._opening)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        while loop.time() >= self._absent_until:
            with suppress(OSError, ValueError, KeyError):  # not there yet, or left by an earlier part of the run
                address = json.loads((self._folder / ADDRESS_FILE).read_text(encoding="utf-8"))
                reader, self._writer = await asyncio.open_connection(address["host"], address["port"])
                self._writer.write(address["secret"].encode() + b"\n")
                self._listener = asyncio.create_task(self._listen(reader, self._writer))
                return
            if loop.time() >= give_up:
                self._absent_until = loop.time() + self._patience  # not every call is to wait that long
                break
            await asyncio.sleep(_LOOK_AGAIN)
        raise OperatorEndpointError(
            f"The run's operators are not coordinated in {self._folder}: start a RunCoordinator there, or leave "
            "workflow_r1.run_dir unset."
        )

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in reader:
                self._answer(json.loads(line))
        except ConnectionError:
            pass
        finally:
            self._writer = None
            writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(OperatorEndpointError("The coordinator of the run's operators has gone."))

    def _answer(self, message: dict[str, Any]) -> None:
        (answer, number), *_ = message.items()
        future = self._waiting.get(number)
        if future is None or future.done():
            return
        if answer == "granted":
            future.set_result(None)
        else:
            future.set_exception(OperatorEndpointError("The run's coordinator does not know the service."))

    def send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")


@dataclass(frozen=True)
class _RemoteSlot:
    """What the coordinator keeps under a number of this connection: a slot, or a place in the queue."""

    connection: RunConnection
    number: int

    def finish(self, used: bool, tokens: int | None = None) -> None:
        self.connection.send({"release": [self.number, used, tokens]})
