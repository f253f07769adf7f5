"""A chat-completions endpoint with a fixed service time, in a process of its own, for the operator benchmarks.

It knows nothing: every reply holds each tag that an operator may ask for.
"""

import asyncio
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

KEY, MODEL = "benchmark", "benchmark"
_REPLY = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "<reasoning>It is known.</reasoning><result>Paris</result><choice>A</choice>",
                },
            }
        ],
        "usage": {"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 170},
    }
).encode()


@contextmanager
def endpoint(service_time: float, fault_rate: float = 0.0) -> Iterator[str]:
    """The base URL of an endpoint that takes `service_time` seconds a request, and fails `fault_rate` of them."""
    command = [sys.executable, __file__, str(service_time), str(fault_rate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


def counters(base_url: str) -> dict[str, int]:
    """`requests` so far, and the most that were `in_flight` at once."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/counters") as response:
        return json.load(response)


async def serve(service_time: float, fault_rate: float) -> None:
    counts, now = {"requests": 0, "in_flight": 0}, 0
    rng = random.Random(0)

    async def complete(request: web.Request) -> web.StreamResponse:
        nonlocal now
        await request.read()
        counts["requests"] += 1
        now += 1
        counts["in_flight"] = max(counts["in_flight"], now)
        try:
            await asyncio.sleep(service_time)
        finally:
            now -= 1
        if rng.random() < fault_rate:
            if rng.random() < 0.5:
                return web.Response(status=503)
            assert request.transport is not None
            request.transport.close()
        return web.Response(body=_REPLY, content_type="application/json")

    async def count(request: web.Request) -> web.StreamResponse:
        return web.json_response(counts)

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", complete), web.get("/counters", count)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:])))
