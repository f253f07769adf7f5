"""A checkpoint is served for as long as it is needed, and no longer."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from workflow_r1.evaluation.errors import EvaluationError, PolicyEndpointError
from workflow_r1.evaluation.serving import served_checkpoint

Install = Callable[[str], None]

# Stands in for vLLM: a server, and a worker of it as a process of its own.
STAND_IN = """
import http.server, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "worker of", *sys.argv])
port = int(sys.argv[sys.argv.index("--port") + 1])
print("serving", sys.argv, flush=True)
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def served_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of vLLM."""
    (tmp_path / "health").write_text("ok")

    def install(program: str) -> None:
        (tmp_path / "program.py").write_text(program)
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\ncd {tmp_path}\nexec {sys.executable} {tmp_path}/program.py "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr("workflow_r1.evaluation.serving.sys.executable", str(script))

    return install


def processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def all_ended(folder: Path) -> bool:
    """Whether nothing is left, once the kernel has done what it was told."""
    _, alive = psutil.wait_procs(processes(folder), timeout=5)
    return not alive


@pytest.mark.slow
async def test_the_server_and_its_workers_end_with_the_evaluation(served_by: Install, tmp_path: Path) -> None:
    served_by(STAND_IN)
    model = str(tmp_path / "model")
    async with served_checkpoint(model, tmp_path / "logs/vllm.log", os.environ, ["--max-model-len", "512"]) as served:
        assert len(processes(tmp_path)) == 2
        log = (tmp_path / "logs/vllm.log").read_text()
        assert f"'serve', '{model}'" in log
        assert "'--max-model-len', '512'" in log
        assert served.api_key not in log
    assert all_ended(tmp_path)


@pytest.mark.slow
async def test_an_interrupted_start_leaves_no_process(served_by: Install, tmp_path: Path) -> None:
    served_by(STAND_IN.replace("http.server.HTTPServer", "worker.wait(); http.server.HTTPServer"))
    context = served_checkpoint(str(tmp_path / "model"), tmp_path / "vllm.log", os.environ)
    starting = asyncio.create_task(context.__aenter__())
    while len(processes(tmp_path)) < 2:  # noqa: ASYNC110 (other processes are waited for)
        await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert all_ended(tmp_path)


async def test_a_server_that_does_not_come_up_says_why(served_by: Install, tmp_path: Path) -> None:
    served_by('print("loading"); raise ValueError("No available memory")')
    with pytest.raises(EvaluationError, match=r"\(ValueError: No available memory\): see .*vllm\.log") as raised:
        async with served_checkpoint("model", tmp_path / "vllm.log", os.environ):
            raise AssertionError("it never came up")
    assert "vllm.entrypoints.cli.main serve model" in str(raised.value)


@pytest.mark.slow
async def test_a_server_that_dies_in_use_is_blamed_and_not_the_connection(served_by: Install, tmp_path: Path) -> None:
    served_by(STAND_IN)

    async def use() -> None:
        async with served_checkpoint("model", tmp_path / "vllm.log", os.environ):
            for process in processes(tmp_path):
                process.kill()
                process.wait()
            raise PolicyEndpointError("The policy endpoint cannot be reached.")

    with pytest.raises(EvaluationError, match="vLLM ended while it served the policy"):
        await use()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_server_ends_even_with_a_killed_evaluation(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "python").chmod(0o755)
    program = f"""
import asyncio, os, sys
from pathlib import Path
from workflow_r1.evaluation import serving
sys.executable = "{tmp_path}/python"
async def main():
    async with serving.served_checkpoint("model", Path("{tmp_path}/vllm.log"), os.environ):
        pass
asyncio.run(main())
"""
    evaluation = subprocess.Popen([sys.executable, "-c", program])
    parent = psutil.Process(evaluation.pid)
    deadline = time.monotonic() + 120
    while not (servers := parent.children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    evaluation.send_signal(signal.SIGKILL)
    evaluation.wait()
    _, alive = psutil.wait_procs(servers, timeout=5)
    assert len(servers) == 1
    assert alive == []
