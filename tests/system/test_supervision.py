"""Nothing of a command is left running, whoever is killed: the command, its starter, the supervisor between them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.processes import still_there
from support.waiting import wait_until

from workflow_r1.system.folder_lock import FolderLock
from workflow_r1.system.supervision import Supervised

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to a supervisor"),
]

# A child in a session of its own, under another name and with nothing in its environment, and a grandchild that its
# parent leaves an orphan. They print their ids and the command's own.
OFFSPRING = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import signal, time; {first}; print('up', flush=True); time.sleep(600)"]
def start():
    child = subprocess.Popen(sleep, env={{}}, start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
start()
if os.fork() == 0:
    start()
    os._exit(0)
os.wait()
print(os.getpid(), flush=True)
{then}
"""
STARTER = """
import os, sys, time
from pathlib import Path
from workflow_r1.system.folder_lock import FolderLock
from workflow_r1.system.supervision import Supervised
folder = Path(sys.argv[1])
lock = FolderLock(folder)
supervised = Supervised([sys.executable, folder / "command.py"], os.environ, folder / "log", [lock.fileno()])
time.sleep(600)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    def write(then: str = "time.sleep(600)", first: str = "pass") -> list[str]:
        (tmp_path / "command.py").write_text(OFFSPRING.format(first=first, then=then))
        return [sys.executable, str(tmp_path / "command.py")]

    return write


def family(folder: Path) -> list[psutil.Process]:
    """The command and its offspring, once they are up."""
    log = folder / "log"
    wait_until(lambda: log.exists() and len(log.read_text().split()) >= 3)
    return [psutil.Process(int(pid)) for pid in log.read_text().split()]


def left(processes: list[psutil.Process], within: float = 0.0) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=within)
    return still_there(alive)


def test_stopping_it_ends_even_what_does_not_want_to(write: Callable, tmp_path: Path) -> None:
    supervised = Supervised(write(first="signal.signal(signal.SIGTERM, signal.SIG_IGN)"), os.environ, tmp_path / "log")
    processes = family(tmp_path)
    assert supervised.running
    assert supervised.exit_code is None
    supervised.stop()
    assert left(processes) == []
    assert not supervised.running


@pytest.mark.parametrize(
    ("then", "code"), [("sys.exit(3)", 3), ("pass", 0), ("os.kill(os.getpid(), 9)", 137), ("os.abort()", 134)]
)
def test_its_own_end_ends_the_rest_and_its_exit_code_is_told(
    then: str, code: int, write: Callable, tmp_path: Path
) -> None:
    supervised = Supervised(write(then), os.environ, tmp_path / "log")
    pids = [int(pid) for pid in (tmp_path / "log").read_text().split()] if supervised.has_ended(30) else None
    assert pids is not None
    assert len(pids) == 3
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert supervised.exit_code == code
    supervised.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV])
def test_the_end_of_its_starter_ends_it_and_gives_the_folder_free_when_nothing_is_left(
    number: int, write: Callable, tmp_path: Path
) -> None:
    write()
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], start_new_session=True)
    processes = family(tmp_path)
    starter.send_signal(number)
    assert starter.wait() == -number
    FolderLock(tmp_path).close()  # waits
    assert left(processes) == []


def test_a_killed_supervisor_leaves_nothing_either(write: Callable, tmp_path: Path) -> None:
    supervised = Supervised(write(), os.environ, tmp_path / "log")
    processes = family(tmp_path)
    processes[-1].parent().kill()
    assert supervised.has_ended(10)
    supervised.stop()
    assert left(processes) == []


def test_the_command_ends_where_starter_and_supervisor_are_killed_at_once(write: Callable, tmp_path: Path) -> None:
    write()
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], start_new_session=True)
    *offspring, command = family(tmp_path)
    supervisor = command.parent()
    supervisor.suspend()
    starter.kill()
    supervisor.kill()
    assert left([command], within=10) == []
    for process in offspring:  # verl's own end with their driver
        process.kill()
    starter.wait()


def test_a_supervisor_that_is_told_to_end_ends_all(write: Callable, tmp_path: Path) -> None:
    supervised = Supervised(write(), os.environ, tmp_path / "log")
    processes = family(tmp_path)
    processes[-1].parent().terminate()
    assert supervised.has_ended(30)
    assert left(processes) == []
    assert supervised.exit_code == 128 + signal.SIGTERM
    supervised.stop()
