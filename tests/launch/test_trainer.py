"""The trainer's process and its offspring, stood in for by scripts: nothing of them survives `stop`."""

import os
import sys
import time

import psutil
import pytest

from workflow_r1.launch import trainer
from workflow_r1.launch.trainer import TrainerProcess

# A child in a session of its own that ignores SIGTERM, and a grandchild that its parent leaves an orphan.
OFFSPRING = """
import os, signal, subprocess, sys, time
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
stubborn = subprocess.Popen(sleep, start_new_session=True)
if os.fork() == 0:
    orphan = subprocess.Popen(sleep, start_new_session=True)
    print(orphan.pid, flush=True)
    os._exit(0)
print(stubborn.pid, flush=True)
{then}
"""


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start a `TrainerProcess` that runs a script instead of verl, once its two children are up."""

    def run(then: str) -> tuple[TrainerProcess, list[int]]:
        module = tmp_path / "verl" / "trainer"
        module.mkdir(parents=True)
        (module.parent / "__init__.py").touch()
        (module / "__init__.py").touch()
        (module / "main_ppo.py").write_text(OFFSPRING.format(then=then))
        log = tmp_path / "log"
        monkeypatch.setattr(trainer, "_GRACE_SECONDS", 1.0)
        process = TrainerProcess("recipe", [], {**os.environ, "PYTHONPATH": str(tmp_path)}, log)
        while len(pids := log.read_text().split()) < 2:
            assert time.sleep(0.02) is None
        return process, [int(pid) for pid in pids]

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="verl and vLLM run on Linux")
@pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit(3)"])
@pytest.mark.slow
def test_nothing_that_the_trainer_started_survives_its_end(start, then):
    process, pids = start(then)
    while then == "sys.exit(3)" and process.running:
        time.sleep(0.02)
    assert all(psutil.pid_exists(pid) for pid in pids)
    process.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not process.running
    assert process.exit_code == (3 if then == "sys.exit(3)" else -15)
