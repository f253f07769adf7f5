"""A real chat-completions endpoint on loopback whose faults a test chooses."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

KEY = "sk-never-to-be-seen"
Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


def reply(text: str | None, prompt_tokens: int = 10, completion_tokens: int = 5) -> Behaviour:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": 0}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    return answer


def result(text: str) -> Behaviour:
    return reply(f"<reasoning>so</reasoning><result>{text}</result>")


def status(code: int, message: str = "", headers: dict[str, str] | None = None) -> Behaviour:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": message}}, status=code, headers=headers)

    return answer


async def truncated_json(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text='{"choices": [{"message": {"con', content_type="application/json")


async def web_page(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text="<html>Welcome</html>", content_type="text/html")


async def dropped(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def dropped_midway(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": ')
    return await dropped(request, body)


async def hang(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


def together(count: int) -> Behaviour:
    """Holds every request until `count` are there at once; a client that is too serial gets 400s."""
    waiting, complete = 0, asyncio.Event()

    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        nonlocal waiting
        waiting += 1
        if waiting == count:
            complete.set()
        try:
            await asyncio.wait_for(complete.wait(), timeout=10)
        except asyncio.TimeoutError:
            return web.Response(status=400)
        return await result(f"sample {waiting}")(request, body)

    return answer


class Endpoint:
    """What was asked of it, and how it behaves: first as `script` says, then as `behaviour`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.script: deque[Behaviour] = deque()
        self.behaviour: Behaviour = result("Paris")
        self.models = ["small", "large"]
        self.in_flight = 0
        self.most_in_flight = 0
        self.url = ""
        self.asked = asyncio.Event()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list_models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.times.append(asyncio.get_running_loop().time())
        self.asked.set()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            behaviour = self.script.popleft() if self.script else self.behaviour
            return await behaviour(request, body)
        finally:
            self.in_flight -= 1

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
