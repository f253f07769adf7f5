"""The simulated operator LLM behind the OpenAI chat-completions API, with faults to order."""

import asyncio
import hmac
import json
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from workflow_r1.world.load import Load
from workflow_r1.world.simulated_llm import MODEL_NAME, CompletionRequest, SimulatedLLM

Fault = Literal["rate_limit", "server_error", "hang", "broken_json", "drop"]
_Fraction = Field(default=0.0, ge=0.0, le=1.0)


class Faults(BaseModel):
    """What goes wrong on purpose: the fraction of completion requests that meet each fault.

    Attributes:
        rate_limit: status 429.
        server_error: status 500.
        hang: no reply until the client goes away.
        broken_json: status 200 with a body cut in the middle.
        drop: the connection closes in the middle of the body.
        outage: every completion request gets status 503, whatever the fractions say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_limit: float = _Fraction
    server_error: float = _Fraction
    hang: float = _Fraction
    broken_json: float = _Fraction
    drop: float = _Fraction
    outage: bool = False

    def draw(self, rng: random.Random) -> Fault | None:
        """At most one fault for one request."""
        point = rng.random()
        for fault, fraction in (
            ("rate_limit", self.rate_limit),
            ("server_error", self.server_error),
            ("hang", self.hang),
            ("broken_json", self.broken_json),
            ("drop", self.drop),
        ):
            point -= fraction
            if point < 0:
                return fault  # type: ignore[return-value]  # mypy widens the literals of a tuple
        return None


class SimulatedEndpoint:
    """The HTTP side of a `SimulatedLLM`.

    Attributes:
        faults: may be replaced while the endpoint runs.
        counters: completion requests by outcome ("ok", "unauthorized", a fault's name, ...), and "requests" in all.
        load: how many there were at once, and in a minute.
    """

    def __init__(
        self, llm: SimulatedLLM, *, api_key: str | None = None, latency: float = 0.0, faults: Faults | None = None
    ):
        self.llm = llm
        self.faults = faults or Faults()
        self.counters: Counter[str] = Counter()
        self.load = Load()
        self._api_key = api_key
        self._latency = latency
        self._fault_rng = random.Random(f"faults {llm.world.seed}")

    @property
    def app(self) -> FastAPI:
        app = FastAPI(title="Simulated operator LLM", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"], response_model=None)
        app.add_api_route("/v1/models", self.models, methods=["GET"], response_model=None)
        app.add_api_route("/counters", lambda: dict(self.counters), methods=["GET"])
        app.add_api_route("/faults", self.set_faults, methods=["PUT"])
        return app

    async def models(self, request: Request) -> Response:
        if not self._authorised(request):
            return _error(401, "Incorrect API key provided.", "invalid_api_key")
        description = "A simulation over invented facts, not a language model."
        model = {
            "id": MODEL_NAME,
            "object": "model",
            "created": 0,
            "owned_by": "workflow-r1",
            "description": description,
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def set_faults(self, faults: Faults) -> Faults:
        self.faults = faults
        return faults

    async def complete(self, request: Request) -> Response:
        self.counters["requests"] += 1
        with self.load.request():
            return await self._complete(request)

    async def _complete(self, request: Request) -> Response:
        if not self._authorised(request):
            return self._refuse("unauthorized", 401, "Incorrect API key provided.", "invalid_api_key")
        try:
            body = json.loads(await request.body())
            chat = CompletionRequest.model_validate(body)
        except ValueError as error:
            return self._refuse("bad_request", 400, f"The request does not fit: {error}", "invalid_request_error")
        if chat.stream:
            return self._refuse("bad_request", 400, "Streaming is not simulated.", "invalid_request_error")
        if chat.model != MODEL_NAME:
            return self._refuse("unknown_model", 404, f"The only model here is {MODEL_NAME}.", "model_not_found")
        if self.faults.outage:
            return self._refuse("outage", 503, "The simulated service is down.", "service_unavailable")

        fault = self.faults.draw(self._fault_rng)
        if fault == "rate_limit":
            return self._refuse(fault, 429, "Simulated rate limit.", "rate_limit_exceeded")
        if fault == "server_error":
            return self._refuse(fault, 500, "Simulated server error.", "internal_error")
        self.counters[fault or "ok"] += 1
        if fault == "hang":
            await _disconnected(request)
            return Response(status_code=499)  # nobody reads it
        await asyncio.sleep(self._latency)
        reply = json.dumps(self._completion(chat, body)).encode()
        if fault == "broken_json":
            return Response(reply[: len(reply) // 2], media_type="application/json")
        if fault == "drop":
            return _DroppedResponse(reply, media_type="application/json")
        return Response(reply, media_type="application/json")

    def _refuse(self, outcome: str, status: int, message: str, code: str) -> Response:
        self.counters[outcome] += 1
        return _error(status, message, code)

    def _authorised(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._api_key is None or hmac.compare_digest(given.encode(), self._api_key.encode())

    def _completion(self, request: CompletionRequest, body: dict[str, Any]) -> dict[str, Any]:
        texts = self.llm.complete(request, body)
        prompt_tokens = sum(_count_tokens(message.text) for message in request.messages)
        completion_tokens = sum(map(_count_tokens, texts))
        return {
            "id": f"chatcmpl-{self.counters['requests']}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL_NAME,
            "choices": [
                {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for index, text in enumerate(texts)
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }


class RunningServer:
    """A simulated endpoint that is being served.

    Attributes:
        base_url: what OPERATOR_BASE_URL has to be.
        endpoint: its counters and faults.
    """

    def __init__(self, endpoint: SimulatedEndpoint, listener: socket.socket):
        self.endpoint = endpoint
        host, port = listener.getsockname()[:2]
        self.base_url = f"http://{host}:{port}/v1"
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                endpoint.app,
                lifespan="off",
                log_config=None,
                log_level="critical",  # what breaks here breaks on purpose
                timeout_keep_alive=75,  # as nginx: connections outlive a training step without operator calls
                timeout_graceful_shutdown=1,  # a request that hangs on purpose must not hold up the end
            )
        )

    def run(self) -> None:
        """Serve until `stop` or a signal."""
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


@contextmanager
def running_server(endpoint: SimulatedEndpoint, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningServer]:
    """Serve `endpoint` from a thread of this process while the context is open; port 0 is any free port.

    Raises:
        OSError: the port is taken.
    """
    server = RunningServer(endpoint, _listen(host, port))
    thread = threading.Thread(target=server.run, name="simulated-operator-llm", daemon=True)
    thread.start()  # the socket listens already: a request that comes early waits in its queue
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def serve(
    endpoint: SimulatedEndpoint, *, host: str = "127.0.0.1", port: int = 0, announce: Callable[[str], None] = print
) -> None:
    """Serve `endpoint` until Ctrl-C; `announce` gets the base URL.

    Raises:
        OSError: the port is taken.
    """
    server = RunningServer(endpoint, _listen(host, port))
    announce(server.base_url)
    with suppress(KeyboardInterrupt):  # uvicorn has shut down by then, and passes the signal on
        server.run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise OSError(
            error.errno, f"Cannot listen on {host}:{port} ({error.strerror}): choose another port, or 0 for a free one."
        ) from None


class _DroppedResponse(Response):
    """Promises the whole body, sends half, and leaves: uvicorn then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


async def _disconnected(request: Request) -> None:
    """Wait until the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, message: str, code: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": code, "param": None, "code": code}}, status)


def _count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))  # words and punctuation marks stand in for tokens
