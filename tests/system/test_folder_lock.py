"""A folder has one run at a time, and a second hears who has it."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from workflow_r1.system import folder_lock
from workflow_r1.system.folder_lock import FolderInUseError, FolderLock


def test_a_second_run_hears_who_has_the_folder_and_since_when(tmp_path: Path) -> None:
    said = rf"^process {os.getpid()} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d "
    with closing(FolderLock(tmp_path)) as lock:
        assert lock.is_held
        for _ in range(2):  # being refused changes nothing
            with pytest.raises(FolderInUseError, match=said):
                FolderLock(tmp_path)
    FolderLock(tmp_path).close()


def test_it_is_free_when_its_holder_was_killed_and_no_child_keeps_it(tmp_path: Path) -> None:
    program = f"""
import os, subprocess, sys
from pathlib import Path
from workflow_r1.system.folder_lock import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=-3, stderr=-3)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    holder = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert holder.returncode == -9
    FolderLock(tmp_path).close()
    os.kill(int(holder.stdout), 9)


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
def test_only_a_holder_that_is_gone_from_this_machine_is_waited_for(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_PATIENCE_SECONDS", 0.3)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with closing(FolderLock(tmp_path)):
        (tmp_path / "run.lock").write_text(json.dumps({"pid": gone.pid, "host": host, "since": "then"}))
        waits: list[float] = []
        monkeypatch.setattr(folder_lock.time, "sleep", waits.append)
        monkeypatch.setattr(folder_lock.time, "monotonic", lambda: float(len(waits)))
        with pytest.raises(FolderInUseError, match=f"^process {gone.pid} on {host}, since then$"):
            FolderLock(tmp_path)
    assert bool(waits) == (host != "elsewhere")


def test_a_holder_that_has_not_said_who_it_is_yet_is_respected_all_the_same(tmp_path: Path) -> None:
    with closing(FolderLock(tmp_path)):
        (tmp_path / "run.lock").write_text("{")
        with pytest.raises(FolderInUseError, match=r"^a process that has just started$"):
            FolderLock(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_no_obstacle_but_known(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with closing(FolderLock(tmp_path)) as lock:
        assert not lock.is_held
