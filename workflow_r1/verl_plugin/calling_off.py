"""A rollout that is cancelled calls its generation off on the server too, for any agent loop."""

import asyncio
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import ray
from ray.exceptions import RayError

from workflow_r1.verl_plugin.upstream import replaces_verls

_PATIENCE = 10.0  # seconds, for a server that no longer answers


@replaces_verls
async def _acquire_server(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """verl 0.9.1 awaits a server's reply (workers/rollout/llm_server.py:147), which goes on when the wait is cancelled.

    vLLM would sample for nobody, and on while its weights are replaced.
    """
    server_id, server = await wrapped(*args, **kwargs)
    return server_id, SimpleNamespace(generate=SimpleNamespace(remote=partial(_generate, server)))


async def _generate(server: Any, **request: Any) -> Any:
    reply = server.generate.remote(**request)
    try:
        return await reply
    except asyncio.CancelledError:
        ray.cancel(reply)  # the server's coroutine is cancelled, at which vLLM aborts the request
        with anyio.move_on_after(_PATIENCE, shield=True), suppress(RayError):
            await reply
        raise
