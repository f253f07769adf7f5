"""Whatever an OpenAI-compatible server sends in place of what OpenAI documents is read, or is a fault that says why."""

import json
from contextlib import suppress

import pytest
import support.faulty_endpoint as c
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from support.odd_replies import ERRORS, READABLE, Sent, message, sent

from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool, OperatorSettings
from workflow_r1.services.complaint import read_complaint
from workflow_r1.services.completion import ErrorReplyError, MalformedReplyError, read_completion, read_models

TEXT = "<reasoning>so</reasoning><result>Paris</result>"


def sends(response: Sent) -> c.Behaviour:
    async def answer(request: web.Request, body: dict) -> web.StreamResponse:
        return web.Response(body=response.body, status=response.status, headers=response.headers)

    return answer


@pytest.mark.parametrize("kind", READABLE)
async def test_a_text_is_read_however_it_comes(endpoint, make_pool, kind):
    endpoint.behaviour = sends(READABLE[kind](TEXT))
    result = await make_pool(max_retries=0).call("AnswerGenerate", "q")
    assert (result.text, result.error) == ("Paris", None)


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_error_keeps_its_text_however_it_comes(endpoint, make_pool, kind):
    response, said = ERRORS[kind]
    endpoint.behaviour = sends(response)
    result = await make_pool(max_retries=0).call("AnswerGenerate", "q")
    assert result.failed
    assert said in result.error
    assert result.error.startswith(f"The operator endpoint {endpoint.url} ")


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [("as OpenAI documents it", (90, 20)), ("usage of strings", (90, 20)), ("a stream", (90, 20))]
    + [(kind, (None, None)) for kind in ("no usage", "usage null", "usage with NaN", "usage that is a list")],
)
async def test_tokens_are_counted_or_unknown_and_never_zero(endpoint, make_pool, kind, tokens):
    endpoint.behaviour = sends(READABLE[kind](TEXT))
    pool = make_pool(prompt_price=1.0)
    result = await pool.call("AnswerGenerate", "q")
    assert (result.prompt_tokens, result.completion_tokens) == tokens
    assert result.cost == (None if tokens[0] is None else 90 / 1e6)
    metrics = pool.usage.metrics()
    assert ("operators/total/prompt_tokens" in metrics, metrics["operators/total/uncounted"]) == (
        (False, 1) if tokens[0] is None else (True, 0)
    )


async def test_zeros_of_a_server_that_does_not_count_are_unknown(endpoint, make_pool):
    endpoint.behaviour = sends(sent(message(TEXT, usage={"prompt_tokens": 0, "completion_tokens": 0})))
    result = await make_pool().call("AnswerGenerate", "q")
    assert (result.prompt_tokens, result.completion_tokens, result.cost) == (None, None, 0.0)


async def test_halves_of_surrogate_pairs_can_be_encoded(endpoint, make_pool):
    endpoint.behaviour = sends(
        sent(b'{"choices": [{"message": {"content": "<result>a\\ud800b \\ud83d\\ude00</result>"}}]}')
    )
    result = await make_pool().call("AnswerGenerate", "q")
    assert result.text == "a\ufffdb 😀"


async def test_halves_of_surrogate_pairs_in_an_error_can_be_encoded(endpoint, make_pool):
    endpoint.behaviour = sends(sent(b'{"error": {"message": "bad \\ud83d thing"}}', status=400))
    result = await make_pool(max_retries=0).call("AnswerGenerate", "q")
    assert "bad \ufffd thing" in result.error


async def test_a_reply_of_a_megabyte_is_read(endpoint, make_pool):
    endpoint.behaviour = sends(sent(message("<result>" + "word " * 200_000 + "</result>")))
    result = await make_pool().call("AnswerGenerate", "q")
    assert len(result.text) == 999_999
    assert result.seconds < 2


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize(
    "reply",
    [
        message(None, reasoning_content="Paris, I think"),
        message("", reasoning="Paris, I think"),
        message("  \n", thinking="Paris, I think"),
        message([{"type": "thinking", "thinking": [{"type": "text", "text": "Paris"}]}]),
        message("<think>Paris, I think"),
        message("<think>Paris, I think</think>\n"),
        message("Paris, I think</think>"),
        message(None, reasoning_details=[{"type": "reasoning.text", "text": "Paris"}]),
        message(None, usage={"completion_tokens": 1024, "completion_tokens_details": {"reasoning_tokens": 1024}}),
        message(None, usage={"prompt_tokens": 10, "completion_tokens": 500}),
    ],
)
async def test_thoughts_without_a_text_are_a_fault_and_are_paid_for(endpoint, make_pool, reply, finish_reason):
    reply["choices"][0]["finish_reason"] = finish_reason
    endpoint.behaviour = sends(sent(reply))
    result = await make_pool(completion_price=1.0).call("AnswerGenerate", "q")
    assert (result.failed, result.requests) == (True, 1)
    assert result.completion_tokens == reply["usage"]["completion_tokens"]
    if finish_reason == "stop":
        assert result.error.endswith(" sent thoughts and no text.")
    else:
        assert "it ran out of tokens while it thought. Raise max_tokens (1,024 now), or" in result.error
        assert result.error.endswith("with OPERATOR_REQUEST or workflow_r1.operators.request.")


@pytest.mark.parametrize(
    "thoughts", ["<think>Is it <result>Rome</result>?</think>", "Is it <result>Rome</result>?</think>", ""]
)
async def test_thoughts_before_a_text_are_no_part_of_it(endpoint, make_pool, tmp_path, monkeypatch, thoughts):
    (tmp_path / "plain_operator.py").write_text(
        "from workflow_r1.operators import InputField, OperatorSpec\n"
        "Plain = OperatorSpec(name='Plain', use_when='always', inputs=(InputField(name='text'),), prompt='{text}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    endpoint.behaviour = sends(sent(message(thoughts + "\n\nParis", reasoning_content="apart from it")))
    assert (await make_pool(["Plain"], ("plain_operator",)).call("Plain", "q")).text == "Paris"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (message(None, "tool_calls", tool_calls=[{"function": {"name": "f"}}]), "sent a tool call instead of text"),
        (message(None, "content_filter"), "withheld its reply (content_filter)."),
        (message("", "SAFETY"), "withheld its reply (SAFETY)."),
    ],
)
async def test_what_else_there_is_instead_of_a_text_is_named(endpoint, make_pool, reply, said):
    endpoint.behaviour = sends(sent(reply))
    result = await make_pool().call("AnswerGenerate", "q")
    assert (result.failed, result.requests) == (True, 1)
    assert said in result.error


async def test_check_gives_a_thinking_model_the_room_that_operators_give_it(endpoint, make_pool):
    async def thinks(request: web.Request, body: dict) -> web.StreamResponse:
        enough = body["max_tokens"] >= 100
        reply = message("ready") if enough else message(None, "length", reasoning_content="hm")
        return web.json_response(reply)

    endpoint.behaviour = thinks
    await make_pool().check()
    assert [body["max_tokens"] for body in endpoint.bodies] == [16, 1024]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("/v1/chat/completions", "leads in circles: set OPERATOR_BASE_URL to the address that answers."),
        ("/v1/models", "sent something that is not a reply."),  # a 302 makes of a POST a GET
    ],
)
async def test_a_redirect_that_leads_to_no_reply_is_a_fault(endpoint, make_pool, to, said):
    endpoint.behaviour = sends(sent("", 308 if "chat" in to else 302, Location=to))
    result = await make_pool(max_retries=0).call("AnswerGenerate", "q")
    assert result.error.endswith(f" {said}")


TOO_LONG = [
    (400, "Input validation error: `inputs` must have less than 4096 tokens. Given: 9000"),  # TGI
    (422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9000"),
    (400, "request (9000 tokens) exceeds the available context size (4096 tokens)"),  # llama.cpp
    (500, "Requested tokens (9000) exceed context window of 4096"),  # llama-cpp-python
    (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),  # Gemini
    (400, "Range of input length should be [1, 30720]"),  # DashScope
    (400, "This model's maximum prompt length is 131072 but the request contains 150000 tokens."),  # xAI
    (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),  # Anthropic
    (400, "Input is too long for requested model."),  # Bedrock
    (400, "Prompt contains 9000 tokens, too large for model with 4096 maximum context length"),  # Mistral
    (400, "Please reduce the length of the messages or completion."),  # Groq
    (400, "Trying to keep the first 9000 tokens when context the overflows. loaded with context length of only 4096"),
    (413, "Request Entity Too Large"),
]


@pytest.mark.parametrize(("status", "said"), TOO_LONG)
@pytest.mark.parametrize("in_reply", [False, True])
async def test_an_input_that_is_too_long_is_known_by_any_servers_wording(endpoint, make_pool, status, said, in_reply):
    error = {"error": {"message": said, "code": status}}
    endpoint.behaviour = sends(sent(error, 200 if in_reply else status))
    result = await make_pool().call("AnswerGenerate", "word " * 200)
    assert (result.rejected, result.failed, result.requests) == (True, False, 1)


@pytest.mark.parametrize(
    ("key", "said", "shown"),
    [
        ("a", "what is a test", "what is a test"),
        ("key", "Incorrect key provided: 'key'", "Incorrect key provided: '***'"),
        ("none", "Bearer none is not valid, none at all", "Bearer *** is not valid, none at all"),
        (c.KEY, f"Incorrect key {c.KEY}x", "Incorrect key ***x"),
    ],
)
async def test_a_key_is_struck_out_and_a_short_one_garbles_nothing(endpoint, make_pool, key, said, shown):
    endpoint.behaviour = c.status(400, said)
    result = await make_pool(api_key=key).call("AnswerGenerate", "q")
    assert result.error.endswith(f" answered 400: {shown}.")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            "max_tokens",
        ),
        ("Unsupported value: 'temperature' does not support 0.0 with this model. Only 1 is supported.", "temperature"),
        ("seed: Extra inputs are not permitted", "seed"),
        ("max_tokens is too large: 1024. This model supports at most 512 completion tokens", "max_tokens"),
    ],
)
async def test_a_field_that_a_model_refuses_is_named_with_the_setting_that_changes_it(endpoint, make_pool, said, field):
    endpoint.behaviour = c.status(400, said)
    result = await make_pool().call("AnswerGenerate", "q")
    assert result.failed
    assert result.error.endswith(
        f" To change {field} or to leave it out, set OPERATOR_REQUEST or workflow_r1.operators.request."
    )


async def test_fields_of_a_request_are_renamed_changed_and_left_out_for_each_endpoint(endpoint):
    environ = {"OPERATOR_BASE_URL": endpoint.url, "OPERATOR_API_KEY": c.KEY, "OPERATOR_MODEL_NAME": "small"}
    environ["OPERATOR_REQUEST"] = '{"max_tokens": null, "max_completion_tokens": 4000, "temperature": 1}'
    review = {"request": {"temperature": None, "chat_template_kwargs": {"enable_thinking": False}}}
    async with OperatorPool.from_env(environ, endpoints={"Review": review}) as pool:
        await pool.call("AnswerGenerate", "q")
        await pool.call("Review", "<question>q</question><solution>s</solution>")
    first, second = (
        {name: body[name] for name in body if name not in ("model", "messages")} for body in endpoint.bodies
    )
    assert first == {"max_completion_tokens": 4000, "temperature": 1}
    assert second == {"max_tokens": 1024, "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize("value", ["max_tokens", "[1]", '{"model": "x"}', '{"messages": []}', "7", "{"])
def test_a_wrong_request_setting_is_one_clear_sentence(value):
    environ = {"OPERATOR_BASE_URL": "http://x/v1", "OPERATOR_API_KEY": "k", "OPERATOR_MODEL_NAME": "m"}
    with pytest.raises(OperatorConfigError, match=r"^OPERATOR_REQUEST must be a JSON object of fields of a request"):
        OperatorSettings.from_env({**environ, "OPERATOR_REQUEST": value})


async def test_a_list_of_hundreds_of_models_is_cut(endpoint, make_pool):
    endpoint.behaviour, endpoint.models = c.status(404, "no such model"), [f"m{number}" for number in range(300)]
    with pytest.raises(OperatorEndpointError, match=r"It serves: m0, m1, .*, m9 and 290 more\.$"):
        await make_pool().check()


_FIELDS = st.sampled_from(
    ["choices", "message", "content", "text", "type", "usage", "error", "delta", "finish_reason", "stop_reason"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(_JSON)
def test_no_json_at_all_breaks_the_reader(value):
    for content in (json.dumps(value), f"data: {json.dumps(value)}\n\ndata: [DONE]", json.dumps(value)[:-1]):
        read_complaint(content)
        for read in (read_completion, read_models):
            with suppress(MalformedReplyError, ErrorReplyError):
                read(content)
