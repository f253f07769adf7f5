"""A policy endpoint that plays a scripted workflow: stateless and deterministic, so every run of it can be compared."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from workflow_r1.evaluation.session import PolicySampling
from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.world.language import parse_query
from workflow_r1.world.scripted import BEHAVIOURS
from workflow_r1.world.world import World

MODEL = "scripted-policy"
GREEDY = PolicySampling(temperature=0.0, top_p=1.0, max_response_tokens=8_192)
_MODEL = {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests", "max_model_len": 4096}


class ScriptedEndpoint:
    """Chat completions of a policy that follows `behaviour` on the world's questions.

    Attributes:
        behaviour: of `workflow_r1.world.scripted`.
        latency: seconds that each reply takes.
        asked: how often each `(question, number of observations so far)` was requested; the probe is not counted.
        requests: the bodies of all requests, in order.
        most_at_once: the most requests that were ever in flight together.
        fail: returns an error response for a body, or None to serve it.
        tool_role: `accepted`, `refused` as OpenAI does, or `dropped` as by a chat template without it.
        says_stop_reason: as vLLM does.
        counts_tokens: writes a usage.
        alter: called with each choice before it is sent, to make of it what another server sends.
        listing: the response to what models it serves.
        watch: called with each body before it is served.
    """

    def __init__(self, world: World):
        self.world = world
        self.reset()

    def reset(self) -> None:
        """Be as new."""
        self.behaviour, self.latency = BEHAVIOURS["decompose_and_vote"], 0.0
        self.asked: Counter[tuple[str, int]] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.in_flight = self.most_at_once = 0
        self.fail: Callable[[dict[str, Any]], Response | None] = lambda body: None
        self.watch: Callable[[dict[str, Any]], None] = lambda body: None
        self.tool_role = "accepted"
        self.says_stop_reason = True
        self.counts_tokens = True
        self.alter: Callable[[dict[str, Any]], None] = lambda choice: None
        self.listing: Response = JSONResponse({"object": "list", "data": [_MODEL]})

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/models", self.models, methods=["GET"], response_model=None)
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"], response_model=None)
        return app

    async def models(self) -> Response:
        return self.listing

    async def complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(body)
        self.watch(body)
        if (refusal := self.fail(body)) is not None:
            return refusal
        messages = body["messages"]
        if self.tool_role == "refused" and any(message["role"] == "tool" for message in messages):
            return error(400, "a tool message needs tool_calls before it")
        self.in_flight += 1
        self.most_at_once = max(self.most_at_once, self.in_flight)
        try:
            await asyncio.sleep(self.latency)
            return JSONResponse(self._completion(messages, body))
        finally:
            self.in_flight -= 1

    def _completion(self, messages: list[dict[str, str]], body: dict[str, Any]) -> dict[str, Any]:
        question = next(message["content"] for message in messages if message["role"] == "user")
        observations = [message["content"] for message in messages if message["content"].startswith("<info>")]
        text = "ready"
        if (query := parse_query(question)) is not None:
            self.asked[question, len(observations)] += 1
            script = self.behaviour(query, self.world, random.Random(question))
            text = next(script)
            for observation in observations:
                text = script.send(observation)
        stop = next((stop for stop in STOP_STRINGS if text.endswith(stop) and stop in body.get("stop", [])), None)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text.removesuffix(stop or "")},
            "finish_reason": "stop",
        }
        if self.says_stop_reason:
            choice["stop_reason"] = stop
        self.alter(choice)
        dropped = self.tool_role == "dropped"
        read = [message["content"] for message in messages if not (dropped and message["role"] == "tool")]
        usage = {"prompt_tokens": len(" ".join(read).split()), "completion_tokens": len(text.split())}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [choice],
            "usage": {**usage, "total_tokens": sum(usage.values())} if self.counts_tokens else {},
        }


def error(status: int, message: str) -> JSONResponse:
    # No retry: a test that provokes a failure should not wait for seconds.
    return JSONResponse({"error": {"message": message}}, status, headers={"x-should-retry": "false"})


def after_the_checks(act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A `watch` that acts at every turn that is asked for, but not at the check before the first."""
    return lambda body: act() if body.get("max_tokens") != 1 else None
