"""A policy behind any OpenAI-compatible server is scored by what it wrote, or not at all."""

from dataclasses import replace
from typing import Any

import pytest
from fastapi import Response
from support.odd_replies import ERRORS, READABLE, Sent, message, sent
from support.scripted_endpoint import GREEDY, error

from workflow_r1.evaluation import endpoint as endpoint_module
from workflow_r1.evaluation.endpoint import PolicyEndpoint
from workflow_r1.evaluation.errors import EvaluationError, PolicyEndpointError
from workflow_r1.evaluation.session import EndpointSession
from workflow_r1.protocol import parse_turn
from workflow_r1.rollout import GeneratedTurn
from workflow_r1.trajectory import EndedBy
from workflow_r1.world.server import RunningServer

THOUGHT = "I ask first"
CALL = "<tool>AnswerGenerate: who?"
TURN = f"<think>{THOUGHT}</think>{CALL}"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_PAUSES", (0.0, 0.0))


async def take_turns(server: RunningServer, *replies: Sent, **sampling: Any) -> list[GeneratedTurn]:
    """Let a server that passed the checks send these replies, one a turn."""
    endpoint = PolicyEndpoint(server.base_url, api_key="sk-of-the-policy")
    try:
        await endpoint.connect()
        session = EndpointSession(
            endpoint,
            [{"role": "user", "content": "who?"}],
            replace(GREEDY, **{"max_response_tokens": 2_000, **sampling}),
        )
        turns = []
        for reply in replies:
            response = Response(reply.body, reply.status, {**reply.headers, "x-should-retry": "false"})
            server.endpoint.fail = lambda body, response=response: response
            turns.append(await session.take_turn(max_calls=1))
            await session.observe("<info>Brenden</info>")
        return turns
    finally:
        await endpoint.aclose()


@pytest.mark.parametrize("kind", READABLE)
async def test_a_turn_is_read_however_it_comes(kind: str, policy: RunningServer) -> None:
    (turn,) = await take_turns(policy, READABLE[kind](TURN))
    assert (turn.text, turn.cut_by) == (TURN + "</tool>", None)


@pytest.mark.parametrize(
    "kind", sorted(ERRORS.keys() - {"broken compression"})
)  # which the openai client retries for long
async def test_an_error_in_place_of_a_turn_keeps_its_text(kind: str, policy: RunningServer) -> None:
    reply, said = ERRORS[kind]
    with pytest.raises(PolicyEndpointError) as raised:
        await take_turns(policy, reply)
    assert said in str(raised.value)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("stop", ["</tool>", None])
async def test_a_thought_that_the_servers_reasoning_parser_took_is_put_back(
    field: str, stop: str | None, policy: RunningServer
) -> None:
    reply = message(CALL, **{field: THOUGHT})
    if stop is not None:
        reply["choices"][0]["stop_reason"] = stop
    (turn,) = await take_turns(policy, sent(reply))
    assert turn.text == TURN + "</tool>"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (message("\n\n" + CALL, reasoning=f"\n{THOUGHT}\n"), f"<think>\n{THOUGHT}\n</think>\n\n{CALL}</tool>"),
        (message([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": CALL}]), TURN + "</tool>"),
        (message(CALL, reasoning=f"<think>{THOUGHT}"), TURN + "</tool>"),
        (message(f"{THOUGHT}</think>{CALL}"), TURN + "</tool>"),  # the generation prompt opened it
        # What a model thinks before it writes its turn is no part of the turn.
        (message(TURN, reasoning="the format wants a thought"), TURN + "</tool>"),
        # No end of the thought was found, for it was cut or there is none.
        (
            message(None, "length", reasoning=THOUGHT, usage={"prompt_tokens": 9, "completion_tokens": 20}),
            f"<think>{THOUGHT}",
        ),
        (message(None, reasoning=THOUGHT), f"<think>{THOUGHT}"),
    ],
)
async def test_a_thought_goes_where_it_was(reply: dict[str, Any], text: str, policy: RunningServer) -> None:
    (turn,) = await take_turns(policy, sent(reply), max_response_tokens=20)
    assert turn.text == text


TAKEN = {
    "a tool call": (
        message(None, "tool_calls", tool_calls=[{"function": {"name": "AnswerGenerate"}}]),
        "--tool-call-parser",
    ),
    "half a tool call": (message(f"<think>{THOUGHT}</think>", tool_calls=[{"function": {}}]), "--tool-call-parser"),
    "filtered": (message(TURN[:20], "content_filter"), "(content_filter): serve the model without a content filter"),
    "counted thoughts": (
        message(CALL, usage={"completion_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 40}}),
        "--reasoning-parser",
    ),
    "more tokens than bytes": (
        message(CALL, usage={"prompt_tokens": 9, "completion_tokens": 300}),
        "--reasoning-parser",
    ),
    "nothing at all": (message(None, usage={"prompt_tokens": 9, "completion_tokens": 300}), "--reasoning-parser"),
}


@pytest.mark.parametrize("kind", TAKEN)
async def test_a_turn_that_the_server_altered_ends_the_evaluation_and_names_the_flag(
    kind: str, policy: RunningServer
) -> None:
    reply, said = TAKEN[kind]
    with pytest.raises(EvaluationError) as raised:
        await take_turns(policy, sent(reply))
    assert said in str(raised.value)
    assert not isinstance(raised.value, PolicyEndpointError)
    # Once a turn was as it should be, only this question is not served.
    with pytest.raises(PolicyEndpointError):
        await take_turns(policy, sent(message(TURN)), sent(reply))


@pytest.mark.parametrize("usage", [{"prompt_tokens": 9, "completion_tokens": 16}, {"x": 1}])
async def test_a_first_turn_that_the_server_cut_by_its_own_limit_is_not_scored(
    usage: dict[str, int], policy: RunningServer
) -> None:
    with pytest.raises(EvaluationError, match=r"cut the first turn \(length\) where 2,000 tokens were left: serve"):
        await take_turns(policy, sent(message("<think>I a", "length", usage=usage)))


async def test_a_later_turn_that_is_cut_ends_by_length(policy: RunningServer) -> None:
    cut = message("<think>I a", "max_tokens", usage={"prompt_tokens": 99, "completion_tokens": 16})
    first, second = await take_turns(policy, sent(message(TURN)), sent(cut))
    assert (first.cut_by, second.cut_by, second.text) == (None, EndedBy.LENGTH_LIMIT, "<think>I a")


async def test_a_policy_that_writes_nothing_but_control_tokens_is_scored(policy: RunningServer) -> None:
    lost = message("", "length", usage={"prompt_tokens": 9, "completion_tokens": 2_000})
    (turn,) = await take_turns(policy, sent(lost))
    assert (turn.text, turn.cut_by) == ("", EndedBy.LENGTH_LIMIT)


async def test_bounds_hold_where_the_server_does_not_count_tokens(policy: RunningServer) -> None:
    turn = message(TURN, usage={"x": 1})
    first, second = await take_turns(policy, *[sent(turn)] * 2)
    assert 0 < first.tokens[1] < second.tokens[0] < second.tokens[1]
    assert policy.endpoint.requests[-1]["max_tokens"] == 2000 - first.tokens[1]
    assert parse_turn(second.text).error is None


@pytest.mark.parametrize("status", [400, 422, 500, 501])
@pytest.mark.parametrize("in_reply", [False, True])
async def test_a_server_that_refuses_the_tool_role_in_any_way_gets_user_messages(
    status: int, in_reply: bool, policy: RunningServer
) -> None:
    def refuse(body: dict[str, Any]) -> Response | None:
        if all(message["role"] != "tool" for message in body["messages"]):
            return None
        refusal = error(status, "Unexpected message role.")
        if in_reply:
            said = sent({"error": {"message": "Unexpected message role.", "code": status}})
            refusal = Response(said.body, 200, said.headers)
        return refusal

    policy.endpoint.fail = refuse
    endpoint = PolicyEndpoint(policy.base_url)
    await endpoint.connect()
    assert endpoint.observation_role == "user"
    await endpoint.aclose()


async def test_a_fault_that_passes_is_no_refusal_of_the_tool_role(policy: RunningServer) -> None:
    faults = iter([error(503, "loading")])
    policy.endpoint.fail = lambda body: next(faults, None)
    endpoint = PolicyEndpoint(policy.base_url)
    await endpoint.connect()
    assert endpoint.observation_role == "tool"
    await endpoint.aclose()


@pytest.mark.parametrize("kind", ["an error with its status", "plain text", "nothing", "half a stream"])
async def test_a_reply_that_is_none_is_asked_for_again(kind: str, policy: RunningServer) -> None:
    endpoint = PolicyEndpoint(policy.base_url)
    await endpoint.connect()
    bad = ERRORS[kind][0]
    replies = iter([bad, bad, READABLE["as OpenAI documents it"](TURN)])
    policy.endpoint.fail = lambda body: (lambda reply: Response(reply.body, reply.status, reply.headers))(next(replies))
    session = EndpointSession(endpoint, [{"role": "user", "content": "who?"}], GREEDY)
    assert (await session.take_turn(1)).text == TURN + "</tool>"
    await endpoint.aclose()


async def test_fields_of_a_policys_request_are_changed_and_left_out(policy: RunningServer) -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 512, "temperature": 1, "stop": None}
    endpoint = PolicyEndpoint(policy.base_url, request=fields)
    await endpoint.connect()
    await endpoint.complete([{"role": "user", "content": "who?"}], temperature=0.0, stop=["</tool>"], max_tokens=9)
    body = policy.endpoint.requests[-1]
    assert {name: body[name] for name in body if name not in ("model", "messages")} == {
        "max_completion_tokens": 512,
        "temperature": 1,
    }
    await endpoint.aclose()


@pytest.mark.parametrize(
    "listing", ["<html></html>", '{"data": null}', "[]", '{"error": "no"}', '{"data": [{"id": 7}, null]}']
)
async def test_a_server_that_does_not_list_its_models_serves_one_that_is_named(
    listing: str, policy: RunningServer
) -> None:
    policy.endpoint.listing = Response(listing)
    endpoint = PolicyEndpoint(policy.base_url, "scripted-policy")
    await endpoint.connect()
    assert endpoint.context_length is None
    await endpoint.aclose()


async def test_a_template_without_a_system_role_gets_the_prompt_with_the_question(policy: RunningServer) -> None:
    def refuse(body: dict[str, Any]) -> Response | None:
        roles = [message["role"] for message in body["messages"]]
        return error(400, "no such role") if {"system", "tool"} & {*roles} else None

    policy.endpoint.fail = refuse
    endpoint = PolicyEndpoint(policy.base_url)
    await endpoint.connect()
    assert (endpoint.observation_role, endpoint.has_system_role) == ("user", False)
    messages = [{"role": "system", "content": "Think."}, {"role": "user", "content": "where is Sestima set ?"}]
    await EndpointSession(endpoint, messages, GREEDY).take_turn(1)
    assert policy.endpoint.requests[-1]["messages"][0] == {
        "role": "user",
        "content": "Think.\n\nwhere is Sestima set ?",
    }
    await endpoint.aclose()
