"""A policy behind chat completions writes the turns that it writes on training's servers."""

from dataclasses import replace

import pytest
from fastapi import Response
from support.recording_proxy import recording_proxy
from support.scripted_endpoint import GREEDY, MODEL, error

from workflow_r1.evaluation.endpoint import PolicyEndpoint
from workflow_r1.evaluation.errors import ContextLengthError, PolicyEndpointError
from workflow_r1.evaluation.session import EndpointSession, closed_turn
from workflow_r1.operators import OperatorConfigError, OperatorPool, OperatorSettings
from workflow_r1.protocol import parse_turn, render_observation
from workflow_r1.rollout import RolloutLimits, rollout
from workflow_r1.services.chat_api import ChatApi
from workflow_r1.services.completion import Completion
from workflow_r1.trajectory import EndedBy
from workflow_r1.world.server import RunningServer
from workflow_r1.world.world import World

CALL = "<think>ask</think><tool>AnswerGenerate: who directed Velmora ?"
ANSWER = "<think>done</think><answer>Brenden"


def completion(text: str, stop_string: str | None = None, finish_reason: str = "stop") -> Completion:
    return Completion(text, finish_reason, stop_string, prompt_tokens=10, completion_tokens=5)


@pytest.mark.parametrize(
    ("text", "stop_string", "finish_reason", "expected"),
    [
        (CALL, "</tool>", "stop", CALL + "</tool>"),  # vLLM says what ended it
        (CALL, None, "stop", CALL + "</tool>"),  # others do not
        (ANSWER, None, "stop", ANSWER + "</answer>"),
        (CALL + "</tool>", "</tool>", "stop", CALL + "</tool>"),  # a server that leaves it in
        (ANSWER + "</answer>", None, "stop", ANSWER + "</answer>"),
        (CALL, "", "stop", CALL),  # the model itself ended the turn: it is malformed, and stays so
        (CALL, None, "length", CALL),
        ("<think>hm</think>", None, "stop", "<think>hm</think>"),
        (ANSWER + "</answer>\n", None, "stop", ANSWER + "</answer>"),
        # A server without stop strings: what comes after the action was never asked for.
        (CALL + "</tool><info>42</info><answer>42</answer>", None, "stop", CALL + "</tool>"),
        # The stop string that vLLM saw, inside a thought, ends the turn there, as in training.
        ("<think>I write ", "</answer>", "stop", "<think>I write </answer>"),
    ],
)
def test_a_turn_ends_where_it_ended(text: str, stop_string: str | None, finish_reason: str, expected: str) -> None:
    assert closed_turn(completion(text, stop_string, finish_reason), max_calls=1) == expected


def test_a_turn_holds_as_many_parallel_calls_as_are_allowed() -> None:
    call = "<tool>AnswerGenerate: q</tool>"
    assert closed_turn(completion(f"<think>t</think>{call * 3}", ""), max_calls=2) == f"<think>t</think>{call * 2}"
    assert closed_turn(completion(f"<think>t</think>{call * 2}", ""), max_calls=2) == f"<think>t</think>{call * 2}"


async def connected(server: RunningServer, **kwargs: str) -> PolicyEndpoint:
    endpoint = PolicyEndpoint(server.base_url, **kwargs)
    try:
        await endpoint.connect()
    except PolicyEndpointError:
        await endpoint.aclose()
        raise
    return endpoint


def question(world: World) -> str:
    return next(question.text for question in world.questions if question.query.hops == 1)


async def two_turns(server: RunningServer, world: World) -> EndpointSession:
    endpoint = await connected(server)
    session = EndpointSession(endpoint, [{"role": "user", "content": question(world)}], GREEDY)
    turn = await session.take_turn(max_calls=1)
    assert parse_turn(turn.text).calls[0].operator == "MultiAnswerGenerate"
    assert await session.observe(render_observation([("MultiAnswerGenerate", "[Answer 1] Brenden")]))
    turn = await session.take_turn(max_calls=1)
    assert parse_turn(turn.text).calls[0].operator == "ScEnsemble"
    await endpoint.aclose()
    return session


@pytest.mark.parametrize(("tool_role", "expected"), [("accepted", "tool"), ("refused", "user"), ("dropped", "user")])
async def test_an_observation_is_a_tool_message_unless_the_policy_would_not_read_it(
    tool_role: str, expected: str, policy: RunningServer, world: World
) -> None:
    policy.endpoint.tool_role = tool_role
    await two_turns(policy, world)
    last = policy.endpoint.requests[-1]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", expected]
    assert last[1]["content"].endswith("</tool>")  # the stop string went back into the conversation


async def test_servers_that_do_not_say_what_ended_a_turn_serve_as_well(policy: RunningServer, world: World) -> None:
    policy.endpoint.says_stop_reason = False
    await two_turns(policy, world)


async def test_tokens_are_counted_as_the_endpoint_counts_them(policy: RunningServer, world: World) -> None:
    endpoint = await connected(policy)
    session = EndpointSession(endpoint, [{"role": "user", "content": "one two three"}], GREEDY)
    served = iter([Completion(CALL, "stop", "</tool>", 3, 7), Completion(ANSWER, "stop", "</answer>", 25, 4)])

    async def complete(*_: object, **__: object) -> Completion:
        return next(served)

    endpoint.complete = complete  # type: ignore[method-assign]
    first = await session.take_turn(1)
    await session.observe("<info>Brenden</info>")
    second = await session.take_turn(1)
    # 3 prompt tokens, 7 of the first turn, 15 of the observation and what joins it, 4 of the second turn.
    assert (first.tokens, second.tokens) == ((0, 7), (22, 26))
    assert (session.prompt_tokens, session.completion_tokens) == (28, 11)
    await endpoint.aclose()


async def test_max_tokens_is_what_is_left_of_the_response_or_left_out_where_it_might_not_fit(
    policy: RunningServer, world: World
) -> None:
    endpoint = await connected(policy)
    messages = [{"role": "user", "content": question(world)}]
    for room, expected in ((None, 200), (1000, 200), (100, None)):
        endpoint.context_length = room
        session = EndpointSession(endpoint, messages, replace(GREEDY, max_response_tokens=200))
        turn = await session.take_turn(1)
        assert policy.endpoint.requests[-1].get("max_tokens") == expected
    await session.observe("<info>x</info>")
    endpoint.context_length = None
    await session.take_turn(1)
    assert policy.endpoint.requests[-1]["max_tokens"] == 200 - (turn.tokens[1] - turn.tokens[0])
    await endpoint.aclose()


@pytest.mark.parametrize(("finish", "counted"), [("length", 9), ("length", None), ("stop", 10)])
async def test_a_turn_that_its_cap_cut_says_so_also_of_a_server_that_was_not_told(
    finish: str, counted: int | None, policy: RunningServer, world: World
) -> None:
    endpoint = await connected(policy)
    session = EndpointSession(endpoint, [{"role": "user", "content": question(world)}], GREEDY)
    asked = []

    async def complete(*_: object, **request: object) -> Completion:
        asked.append(request["max_tokens"])
        return Completion("<think>so long", finish, "", 3, counted)

    endpoint.complete, endpoint.has_served = complete, True  # type: ignore[method-assign]
    assert (await session.take_turn(1, 9)).cut_by is EndedBy.TURN_LENGTH_LIMIT
    assert asked == [9]
    whole = EndpointSession(
        endpoint, [{"role": "user", "content": question(world)}], replace(GREEDY, max_response_tokens=9)
    )
    assert (await whole.take_turn(1, 9)).cut_by is (EndedBy.LENGTH_LIMIT if finish == "length" else None)
    await endpoint.aclose()


async def test_a_turn_that_the_deadline_calls_off_has_tokens_that_nobody_counted(
    policy: RunningServer, world: World
) -> None:
    endpoint = await connected(policy)
    session = EndpointSession(endpoint, [{"role": "user", "content": question(world)}], GREEDY)
    policy.endpoint.latency = 1.0
    async with OperatorPool(OperatorSettings(base_url=policy.base_url, api_key="k", model=MODEL)) as operators:
        trajectory = await rollout("q", session, operators, RolloutLimits(max_seconds=0.2))
    assert (trajectory.ended_by, trajectory.turns) == (EndedBy.DEADLINE, [])
    assert (session.prompt_tokens, session.completion_tokens) == (None, None)
    await endpoint.aclose()


async def test_a_response_that_is_used_up_takes_no_observation(policy: RunningServer, world: World) -> None:
    endpoint = await connected(policy)
    session = EndpointSession(
        endpoint, [{"role": "user", "content": question(world)}], replace(GREEDY, max_response_tokens=2)
    )
    await session.take_turn(1)
    assert not await session.observe("<info>x</info>")
    await endpoint.aclose()


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 64 tokens.",
        "Input exceeds the context window of this model.",
        "prompt is too long: 70 tokens > 64 maximum",
    ],
)
async def test_a_conversation_that_outgrows_the_context_ends_incomplete(
    message: str, policy: RunningServer, world: World
) -> None:
    def too_long(body: dict) -> object:
        return error(400, message) if len(body["messages"]) > 1 else None

    endpoint = await connected(policy)
    policy.endpoint.fail = too_long
    session = EndpointSession(endpoint, [{"role": "user", "content": question(world)}], GREEDY)
    await session.take_turn(1)
    await session.observe("<info>x</info>")
    turn = await session.take_turn(1)
    assert (turn.text, turn.cut_by) == ("", EndedBy.LENGTH_LIMIT)

    policy.endpoint.fail = lambda body: error(400, message)
    session = EndpointSession(endpoint, [{"role": "user", "content": question(world)}], GREEDY)
    with pytest.raises(PolicyEndpointError, match="Lower --max-response-tokens") as raised:
        await session.take_turn(1)
    assert not isinstance(raised.value, ContextLengthError)  # a prompt that does not fit is no answer
    await endpoint.aclose()


async def test_the_only_model_needs_no_name(policy: RunningServer) -> None:
    endpoint = await connected(policy)
    assert (endpoint.model, endpoint.context_length) == (MODEL, 4096)
    await endpoint.aclose()


@pytest.mark.parametrize(
    ("status", "message", "sentence"),
    [
        (401, "bad key sk-secret", "refused the key (401): set POLICY_API_KEY to a key that it accepts."),
        (404, "no such model", "does not serve the model 'scripted-policy': check the address and the model's name ("),
        (400, "not with sk-secret", "answered 400: not with ***."),
    ],
)
async def test_what_is_wrong_with_an_endpoint_is_one_sentence_without_the_key(
    status: int, message: str, sentence: str, policy: RunningServer
) -> None:
    policy.endpoint.fail = lambda body: error(status, message)
    with pytest.raises(PolicyEndpointError) as raised:
        await connected(policy, api_key="sk-secret")
    assert sentence in str(raised.value)
    seen: BaseException | None = raised.value
    while seen is not None:
        assert "sk-secret" not in f"{seen!r} {vars(seen)}"
        seen = seen.__context__


@pytest.mark.parametrize("content", ['{"choices": []}', '{"choices": null}', "[]", "{"])
@pytest.mark.parametrize("media_type", ["application/json", "text/html"])
async def test_what_is_no_reply_is_called_so(content: str, media_type: str, policy: RunningServer) -> None:
    policy.endpoint.fail = lambda body: Response(content, media_type=media_type)
    with pytest.raises(PolicyEndpointError, match=r"/v1 sent something that is not a reply\."):
        await connected(policy)


async def test_an_endpoint_that_is_not_there_is_one_sentence(world: World) -> None:
    endpoint = PolicyEndpoint("http://127.0.0.1:9/v1")
    with pytest.raises(PolicyEndpointError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        await endpoint.connect()
    await endpoint.aclose()


async def test_several_models_need_a_name(policy: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(self: ChatApi) -> dict[str, None]:
        return {"a": None, "b": None}

    monkeypatch.setattr(ChatApi, "models", two)
    with pytest.raises(PolicyEndpointError, match=r"--model \(it serves a, b\)"):
        await connected(policy)


@pytest.mark.parametrize("key", ["sk-a\nb", "…", "Bearer sk-a", '"sk-a"'])
def test_what_cannot_be_a_key_is_named_by_its_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICY_API_KEY", key)
    with pytest.raises(OperatorConfigError, match=r"^POLICY_API_KEY h"):
        PolicyEndpoint("http://127.0.0.1:9/v1")


async def test_a_policy_of_this_machine_is_asked_past_the_proxy_and_another_through_it(
    policy: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording_proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        await (await connected(policy)).aclose()
        assert proxy.asked == []
        endpoint = PolicyEndpoint("https://llm.example/v1")
        with pytest.raises(
            PolicyEndpointError, match=r"\(through the proxy of ALL_PROXY\) cannot be reached: the proxy"
        ):
            await endpoint.connect()
        await endpoint.aclose()
    assert set(proxy.asked) == {"CONNECT llm.example:443"}
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@proxy.example")
    with pytest.raises(PolicyEndpointError, match="cannot be reached: ALL_PROXY names a SOCKS proxy"):
        await PolicyEndpoint("https://llm.example/v1").connect()
