"""Commands that end with whoever started them, however that one ends.

A supervisor, `python -m workflow_r1.system.supervision COMMAND...`, stands between the two. What the command leaves an
orphan it inherits, in whatever session and under whatever name, so that all of them stay findable: Ray and vLLM start
processes that outlive a killed parent. It ends them all when the command has ended, when it is told to (SIGTERM), and
when its standard input closes: a pipe whose other end its starter holds, which the kernel closes even for a starter
that was killed. Should the supervisor be killed itself, the command ends with it, and its starter ends the rest.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_GRACE_SECONDS = 10.0  # from being asked to end until being killed
_PATIENCE_SECONDS = 60.0  # a process that waits for a broken disk or driver cannot even be killed
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def under_supervisor(command: Sequence[str]) -> list[str]:
    """The command line of `command` under a supervisor; its standard input has to be a pipe that is held open."""
    return [sys.executable, "-m", "workflow_r1.system.supervision", *command]


class Supervised:
    """A command that runs under a supervisor, with its output in a file.

    Args:
        environ: its whole environment.
        log: where its standard output and error are appended.
        held: file descriptors that the supervisor keeps open until nothing is left of the command, such as a lock's.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path, held: Collection[int] = ()):
        _inherit_orphans()
        self._others = set(psutil.Process().children(recursive=True))
        with log.open("ab") as output:
            self._supervisor = subprocess.Popen(
                under_supervisor(command),
                env=environ,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C or a closed terminal reaches the starter, which then stops in order
                pass_fds=tuple(held),
            )

    @property
    def running(self) -> bool:
        """Whether anything is left of the command."""
        return self._supervisor.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The command's, as a shell gives it: 128 and the signal's number where it was killed."""
        return self._supervisor.poll()

    def has_ended(self, seconds: float) -> bool:
        """Wait for the end of the command and of all that it started, but not longer than `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(seconds)
        return not self.running

    def stop(self) -> None:
        """End the command and every process that it started; returns when none is left."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        if not self.has_ended(2 * _PATIENCE_SECONDS):
            self._supervisor.kill()
        if self._supervisor.wait() < 0:  # killed: what it left has become this process's
            _end_offspring(self._others)


def _supervise(command: Sequence[str]) -> int:
    """Run a command until it ends or is to be ended, and leave nothing of it; returns its exit code."""
    _inherit_orphans()
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: told.append(number))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)
    exited: dict[int, int] = {}
    while process.pid not in exited and not told and not select.select([0], [], [], _POLL_SECONDS)[0]:
        exited.update(_reap())
    if process.pid not in exited:
        _end([psutil.Process(process.pid)], _GRACE_SECONDS)  # first and alone: verl's driver shuts Ray down
    _end_offspring()
    code = exited.get(process.pid, -signal.SIGTERM)
    return code if code >= 0 else 128 - code


def _inherit_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _reap() -> dict[int, int]:
    """The exit codes of the children that have ended, by process id."""
    codes = {}
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return codes


def _end_offspring(others: Collection[psutil.Process] = ()) -> None:
    """End every process that descends from this one, and from none of `others`."""

    def left() -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive=True) if child not in others]

    _end(left(), _GRACE_SECONDS)
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while (alive := left()) and time.monotonic() < give_up:  # whatever was being started meanwhile
        _end(alive, grace=0)


def _end(processes: Sequence[psutil.Process], grace: float) -> None:
    """Ask processes to end, and kill those that have not after `grace` seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


if __name__ == "__main__":
    sys.exit(_supervise(sys.argv[1:]))
