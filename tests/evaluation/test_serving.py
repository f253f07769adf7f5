"""A checkpoint is served for as long as it is needed, and no longer."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.processes import still_there
from support.recording_proxy import recording_proxy
from support.waiting import until, wait_until

from workflow_r1.evaluation.errors import EvaluationError, PolicyEndpointError
from workflow_r1.evaluation.serving import served_checkpoint

Install = Callable[[str], None]

# Stands in for vLLM: a server that knows its key, and a worker of it as a process of its own.
STAND_IN = """
import http.server, json, os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "worker of", *sys.argv])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "policy"}]}).encode())
port = int(sys.argv[sys.argv.index("--port") + 1])
print("serving", sys.argv, flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def served_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of vLLM."""

    def install(program: str) -> None:
        package = tmp_path / "vllm" / "entrypoints" / "cli"
        package.mkdir(parents=True)
        for folder in (package, package.parent, package.parent.parent):
            (folder / "__init__.py").touch()
        (package / "main.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        # The paths of a served model and of its log are in the command lines of what serves it.
        monkeypatch.setattr("workflow_r1.evaluation.serving._CPU_ARGUMENTS", ("--marked", str(tmp_path)))

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
    return still_there(alive) == []


@pytest.mark.slow
async def test_the_server_and_its_workers_end_with_the_evaluation(served_by: Install, tmp_path: Path) -> None:
    served_by(STAND_IN)
    model = str(tmp_path / "model")
    async with served_checkpoint(model, tmp_path / "logs/vllm.log", os.environ, ["--max-model-len", "512"]) as served:
        assert len(processes(tmp_path)) == 3  # the server, its worker, and the supervisor of both
        log = (tmp_path / "logs/vllm.log").read_text()
        assert f"'serve', '{model}'" in log
        assert "'--max-model-len', '512'" in log
        assert served.api_key not in log
    assert all_ended(tmp_path)


@pytest.mark.parametrize("name", ["plain (1)", "run [1] *?"])
async def test_vllm_is_given_a_name_that_it_can_glob(served_by: Install, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("the model's")
    code = "import glob, sys; folder = sys.argv[sys.argv.index('serve') + 1]\n"
    code += "print(*(open(file).read() for file in glob.glob(folder + '/*.json')), flush=True)\n"
    served_by(code + STAND_IN)
    async with served_checkpoint(str(tmp_path / name), tmp_path / "vllm.log", os.environ):
        assert (tmp_path / "vllm.log").read_text().startswith("the model's\n")
    assert all_ended(tmp_path)


@pytest.mark.slow
async def test_an_interrupted_start_leaves_no_process(served_by: Install, tmp_path: Path) -> None:
    served_by(STAND_IN.replace("http.server.HTTPServer", "worker.wait(); http.server.HTTPServer"))
    context = served_checkpoint(str(tmp_path / "model"), tmp_path / "vllm.log", os.environ)
    starting = asyncio.create_task(context.__aenter__())
    await until(lambda: len(processes(tmp_path)) >= 3)
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
            [server] = [process for process in processes(tmp_path) if "serve" in process.cmdline()[3:4]]
            server.kill()
            raise PolicyEndpointError("The policy endpoint cannot be reached.")

    with pytest.raises(EvaluationError, match="vLLM ended while it served the policy"):
        await use()
    assert all_ended(tmp_path)


@pytest.mark.slow
async def test_a_server_is_ready_whatever_the_proxy_variables_say(
    served_by: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_by(STAND_IN)
    with recording_proxy() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with served_checkpoint("model", tmp_path / "vllm.log", os.environ):
            assert proxy.asked == []


async def test_another_server_on_the_port_is_not_taken_for_the_policy(
    served_by: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_by("import time; time.sleep(1); raise OSError('[Errno 98] Address already in use')")
    with recording_proxy() as other:  # answers whatever it is asked
        other.status, other.body = 200, {"data": [{"id": "a-model"}]}
        monkeypatch.setattr("workflow_r1.evaluation.serving._free_port", lambda: int(other.url.rpartition(":")[2]))
        with pytest.raises(EvaluationError, match=r"could not serve the policy \(OSError: \[Errno 98\] Addr"):
            async with served_checkpoint("model", tmp_path / "vllm.log", os.environ):
                raise AssertionError("it never came up")
        assert other.asked


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to a supervisor")
def test_the_server_ends_even_with_a_killed_evaluation(served_by: Install, tmp_path: Path) -> None:
    served_by(STAND_IN)
    program = f"""
import asyncio, os
from pathlib import Path
from workflow_r1.evaluation import serving
async def main():
    async with serving.served_checkpoint("model", Path("{tmp_path}/vllm.log"), os.environ, ["--marked", "{tmp_path}"]):
        await asyncio.sleep(600)
asyncio.run(main())
"""
    evaluation = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: len(processes(tmp_path)) >= 4)  # the evaluation, which names the folder too, is one
    servers = [process for process in processes(tmp_path) if process.pid != evaluation.pid]
    evaluation.kill()
    evaluation.wait()
    _, alive = psutil.wait_procs(servers, timeout=20)
    assert still_there(alive) == []
