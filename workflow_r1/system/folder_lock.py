"""One run in a folder at a time."""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil

_FILE = "run.lock"
_PATIENCE_SECONDS = 120.0  # what a killed run left behind ends within it


class FolderInUseError(Exception):
    """Another process holds the folder; the message says which: `process 12 on host, since 2026-01-31 12:00:00`."""


class FolderLock:
    """A folder's, from when it is made until it is closed.

    The kernel holds it for this process and for those that are handed its descriptor, and gives it free when the last
    of them is gone, however it went. A run whose process is gone, and whose own processes are being ended, is waited
    for.

    Attributes:
        is_held: False where the file system takes no locks.

    Raises:
        FolderInUseError: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / _FILE).open("a+", encoding="utf-8")
        try:
            self.is_held = self._acquire()
        except BaseException:
            self.close()
            raise
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        """Give it free, unless another process has been handed its descriptor."""
        self._file.close()

    def _acquire(self) -> bool:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except (BlockingIOError, PermissionError):  # the latter over NFS
                holder, is_there = self._holder()
                if is_there or time.monotonic() > give_up:
                    raise FolderInUseError(holder) from None
            except OSError:
                return False
            time.sleep(0.2)

    def _holder(self) -> tuple[str, bool]:
        """Who holds the lock, and whether that process is there, as far as can be seen from here."""
        self._file.seek(0)
        try:
            found = json.loads(self._file.read())
            is_there = found["host"] != socket.gethostname() or _is_there(found["pid"])
            return f"process {found['pid']} on {found['host']}, since {found['since']}", is_there
        except (ValueError, KeyError, TypeError):  # it is being written
            return "a process that has just started", True


def _is_there(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
