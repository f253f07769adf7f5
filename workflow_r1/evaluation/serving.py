"""vLLM's server for a checkpoint on this machine, on a GPU or a CPU, for as long as an evaluation needs it."""

import asyncio
import glob
import json
import os
import secrets
import shlex
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.runs.cpu_environment import cpu_environment, vllm_is_for_cpu
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.system.supervision import Supervised

MODEL_NAME = "policy"
_START_SECONDS = 1800.0  # a large model is first downloaded
_NOTICED_WITHIN = 1.0  # seconds from the server's end until its supervisor has ended too, for the most part
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# On a CPU as in training: full precision, and no compilation of the model. vLLM 0.27.1 rewinds the generator of a
# request with a seed after each chunk of its prompt, which torch's CPU generators cannot: so prompts stay whole.
_CPU_ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill")


@dataclass(frozen=True)
class Served:
    """Where a checkpoint is being served."""

    base_url: str
    api_key: str


def machine_environment() -> dict[str, str]:
    """The environment for verl and vLLM on this machine."""
    environ = {"HF_HUB_OFFLINE": "0", **os.environ}  # the policy may be a model id
    return cpu_environment(cache_dir(), environ) if vllm_is_for_cpu() else environ


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
    with _without_wildcards(model) as folder:
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", folder, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--served-model-name", MODEL_NAME, "--generation-config", "vllm"]
        command += ["--disable-uvicorn-access-log"]
        command += [*(_CPU_ARGUMENTS if vllm_is_for_cpu() else ()), *arguments]
        served = Served(f"http://127.0.0.1:{port}/v1", key)
        process = _start(command, {**environ, "VLLM_API_KEY": key}, log)
        try:
            await _until_ready(process, served, log, command)
            try:
                yield served
            except EvaluationError as error:
                if not await asyncio.to_thread(process.has_ended, _NOTICED_WITHIN):
                    raise
                raise EvaluationError(
                    f"vLLM ended while it served the policy ({_last_error(log)}): see {log}."
                ) from error
        finally:
            process.stop()


@contextmanager
def _without_wildcards(folder: str) -> Iterator[str]:
    """`folder` by a name that means itself to vLLM 0.27.1, which globs for weights (default_loader.py:211)."""
    if glob.escape(folder) == folder:
        yield folder
        return
    with tempfile.TemporaryDirectory() as parent:
        link = Path(parent) / "policy"
        link.symlink_to(folder)
        yield str(link)


def _start(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Supervised:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    return Supervised(command, environ, log)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def _until_ready(process: Supervised, served: Served, log: Path, command: Sequence[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if not process.running:
            raise EvaluationError(
                f"vLLM could not serve the policy ({_last_error(log)}): see {log}. "
                f"The command was {shlex.join(command)}."
            )
        if await asyncio.to_thread(_is_ready, served):
            return
        await asyncio.sleep(0.5)
    raise EvaluationError(f"vLLM was not ready after {_START_SECONDS:.0f} s: see {log}.")


def _is_ready(served: Served) -> bool:
    """Whether the policy can be asked: by its key and name, for the port may have been taken by another server."""
    request = urllib.request.Request(f"{served.base_url}/models", headers={"Authorization": f"Bearer {served.api_key}"})
    try:
        with _DIRECTLY.open(request, timeout=5) as response:
            return MODEL_NAME in [model["id"] for model in json.load(response)["data"]]
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return False


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no output"])[-1]
