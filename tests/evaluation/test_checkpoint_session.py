"""A checkpoint that this machine serves is evaluated on the tokens that it was trained on."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, Request
from support.chat_templates import CHATML, KINDS, needs_code, tokenizer_of
from support.policy_models import ANSWER, CALL, MESSAGES, OBSERVATION, ids_of, session_on, usable
from support.scripted_endpoint import GREEDY
from support.sessions import play

from workflow_r1.evaluation import opening
from workflow_r1.evaluation.checkpoint_session import CheckpointSession
from workflow_r1.evaluation.config import PolicySettings
from workflow_r1.evaluation.endpoint import PolicyEndpoint
from workflow_r1.evaluation.errors import EvaluationError, PolicyEndpointError
from workflow_r1.evaluation.opening import open_policy
from workflow_r1.evaluation.session import PolicySampling
from workflow_r1.policy.chat_format import read_chat_format
from workflow_r1.world.server import RunningServer, running_server

CONTEXT = 2_000


class TokenServer:
    """vLLM's text completions of scripted tokens."""

    def __init__(self) -> None:
        self.samples: Iterator[Sequence[int]] = iter(())
        self.requests: list[dict[str, Any]] = []

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/models", self.models, methods=["GET"])
        app.add_api_route("/v1/completions", self.complete, methods=["POST"])
        return app

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "policy", "object": "model", "max_model_len": CONTEXT}]}

    async def complete(self, request: Request) -> dict[str, Any]:
        self.requests.append(json.loads(await request.body()))
        ids = next(self.samples, None)
        choice = {"index": 0, "text": "", "finish_reason": "stop"}
        return {"choices": [choice if ids is None else {**choice, "token_ids": list(ids)}]}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(TokenServer()) as running:  # type: ignore[arg-type]  # all it needs is an app
        yield running


async def connected(server: RunningServer, samples: Sequence[Sequence[int]]) -> PolicyEndpoint:
    server.endpoint.requests, server.endpoint.samples = [], iter(samples)  # type: ignore[attr-defined]
    endpoint = PolicyEndpoint(server.base_url)
    await endpoint.find_model()
    return endpoint


@pytest.mark.parametrize("kind", ["ChatML", "alternating", "opens the thought", "channels", "base, without a template"])
async def test_tokens_turns_and_stops_are_those_of_training(kind: str, server: RunningServer) -> None:
    tokenizer = usable(tokenizer_of(KINDS[kind]))
    samples = [turn.removeprefix(read_chat_format(tokenizer).openings[0]) for turn in (CALL, ANSWER)]
    training, fake = await session_on(tokenizer, samples)
    trained = await play(training, [OBSERVATION])

    endpoint = await connected(server, [ids_of(tokenizer, sample) for sample in samples])
    session = CheckpointSession(
        endpoint, read_chat_format(tokenizer), MESSAGES, PolicySampling(0.5, 0.9, 1_000, seed=7)
    )
    turns = await play(session, [OBSERVATION])  # type: ignore[arg-type]  # it plays any session
    await endpoint.aclose()

    assert session.token_ids == training.token_ids
    assert [(turn.text, turn.tokens) for turn in turns] == [(turn.text, turn.tokens) for turn in trained]
    requests = server.endpoint.requests  # type: ignore[attr-defined]
    for asked, request, seed in zip(requests, fake.requests, (7, 8), strict=True):
        assert asked["prompt"] == request["prompt_ids"]
        for stop in ("stop", "include_stop_str_in_output", "stop_token_ids", "skip_special_tokens"):
            assert asked[stop] == request[stop]
        assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.5, 0.9, seed)
        assert asked["return_token_ids"] is True
    assert session.prompt_tokens == sum(len(request["prompt_ids"]) for request in fake.requests)
    assert session.completion_tokens == sum(len(ids_of(tokenizer, sample)) for sample in samples)


async def test_a_prompt_that_leaves_no_room_in_the_context_is_said_and_not_scored(server: RunningServer) -> None:
    endpoint, chat = await connected(server, []), read_chat_format(tokenizer_of(KINDS["ChatML"]))
    with pytest.raises(PolicyEndpointError, match="serve the model with a longer one, or shorten --prompt"):
        CheckpointSession(endpoint, chat, [*MESSAGES, {"role": "user", "content": "日本 " * CONTEXT}], GREEDY)
    await endpoint.aclose()


async def test_a_turn_that_is_called_off_leaves_the_context_as_it_was_and_its_tokens_uncounted(
    server: RunningServer,
) -> None:
    tokenizer = usable(tokenizer_of(KINDS["ChatML"]))
    endpoint = await connected(server, [ids_of(tokenizer, CALL)])
    session = CheckpointSession(endpoint, read_chat_format(tokenizer), MESSAGES, GREEDY)
    await session.take_turn(1)
    await session.observe(OBSERVATION)
    before, asked = (list(session.token_ids), list(session.response_mask)), session.prompt_tokens

    async def hang(*_: object, **__: object) -> list[int]:
        await asyncio.sleep(60)
        return []

    endpoint.sample = hang  # type: ignore[method-assign]
    with anyio.move_on_after(0.05):
        await session.take_turn(1)
    assert (session.token_ids, session.response_mask) == before
    assert (session.prompt_tokens, session.completion_tokens) == (asked + len(session.token_ids), None)
    await endpoint.aclose()


async def test_the_models_context_bounds_the_response(server: RunningServer) -> None:
    endpoint, chat = await connected(server, [[5]]), read_chat_format(tokenizer_of(KINDS["ChatML"]))
    session = CheckpointSession(endpoint, chat, MESSAGES, replace(GREEDY, max_response_tokens=10 * CONTEXT))
    await session.take_turn(1)
    [asked] = server.endpoint.requests  # type: ignore[attr-defined]
    assert asked["max_tokens"] == CONTEXT - len(session.prompt_ids)
    await endpoint.aclose()


@pytest.mark.parametrize(
    ("arguments", "trusted"),
    [
        (["--trust-remote-code"], True),
        (["--dtype", "float32", "--trust_remote_code"], True),
        (["--trust-remote-code", "--no-trust-remote-code"], False),
        (["--trust", "remote-code"], False),
        ([], False),
    ],
)
async def test_a_checkpoints_own_code_runs_where_the_server_is_told_to_trust_it(
    tmp_path: Path, operators: RunningServer, monkeypatch: pytest.MonkeyPatch, arguments: list[str], trusted: bool
) -> None:
    checkpoint = tmp_path / "checkpoint"
    needs_code(checkpoint)
    (checkpoint / "model.safetensors").touch()
    settings = PolicySettings.model_validate({"policy": str(checkpoint), "serve_arguments": arguments})

    def serve(model: str, *rest: object) -> None:
        raise EvaluationError("It got as far as vLLM.")

    monkeypatch.setattr(opening, "served_checkpoint", serve)
    expected = "as far as vLLM" if trusted else "if you trust it set --serve-arguments '--trust-remote-code'"
    with pytest.raises(EvaluationError, match=expected):
        async with open_policy(settings, tmp_path, lambda text: None):
            pass


async def test_a_checkpoint_that_cannot_be_a_policy_is_refused_before_it_is_served(
    tmp_path: Path, operators: RunningServer
) -> None:
    checkpoint = tmp_path / "checkpoint"
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.chat_template = CHATML.replace("message.content", "message.content | upper")
    tokenizer.save_pretrained(checkpoint)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").touch()
    settings = PolicySettings.model_validate({"policy": str(checkpoint)})
    with pytest.raises(EvaluationError, match=r"^The model .* cannot be a policy: its chat template does not show"):
        async with open_policy(settings, tmp_path, lambda text: None):
            pass
    assert not (tmp_path / "vllm.log").exists()
