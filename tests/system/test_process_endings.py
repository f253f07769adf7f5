"""What ends a command ends it in order, and what it was told to ignore does not."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import wait_until

PROGRAM = """
import signal, sys, time
from pathlib import Path
{before}
from workflow_r1.system.endings import end_in_order, uninterrupted
end_in_order()
folder = Path(sys.argv[1])
try:
    (folder / "up").touch()
    time.sleep({seconds})
except KeyboardInterrupt:
    with uninterrupted():
        (folder / "ending").touch()
        print("stopping", flush=True)
        time.sleep({seconds_to_end})
        print("stopped", flush=True)
(folder / "ended").touch()
"""


def program(before: str = "", seconds: float = 60, seconds_to_end: float = 0) -> str:
    return PROGRAM.format(before=before, seconds=seconds, seconds_to_end=seconds_to_end)


def wait_for(path: Path) -> None:
    wait_until(path.exists)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_ends_in_order_and_a_second_one_does_not_disturb(number: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", program(seconds_to_end=0.3), str(tmp_path)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(tmp_path / "up")
    process.send_signal(number)
    wait_for(tmp_path / "ending")
    for second in (number, signal.SIGINT, signal.SIGHUP):
        process.send_signal(second)
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "ended").exists()


def test_a_terminal_that_closes_ends_in_order_though_nothing_can_be_printed(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program(), str(tmp_path)])
    wait_for(tmp_path / "up")
    os.close(terminal)  # what a terminal does whose window is closed
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "ended").exists()


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = subprocess.Popen([sys.executable, "-c", program(ignored, seconds=0.5), str(tmp_path)])
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "ending").exists()
