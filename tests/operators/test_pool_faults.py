"""Every way an endpoint fails: which faults are retried, and the one line that each leaves."""

import logging
import traceback

import pytest
import support.faulty_endpoint as c

from workflow_r1.operators import OperatorEndpointError
from workflow_r1.services.faults import retry_after

UNAVAILABLE = "AnswerGenerate is not available right now: the call was not served."
"""What the policy reads: neither where the endpoint is nor what is wrong with it."""

PERMANENT = {
    "wrong key": (c.status(401, f"Incorrect key {c.KEY}"), "refused the key (401): set OPERATOR_API_KEY"),
    "forbidden": (c.status(403), "refused the key (403)"),
    "unknown model": (c.status(404, "no such model"), "does not serve the model 'small': check OPERATOR_MODEL_NAME"),
    "bad request": (c.status(400, f"what is\n{c.KEY}?"), "answered 400: what is ***?."),
}
PASSING = {
    "server error": (c.status(500), "answered 500."),
    "rate limit": (c.status(429, "slow down"), "answered 429: slow down."),
    "conflict": (c.status(409), "answered 409."),
    "truncated JSON": (c.truncated_json, "sent something that is not a reply."),
    "a web page": (c.web_page, "is right; the address of an API most often ends in /v1."),
    "dropped connection": (c.dropped, "if it speaks TLS, OPERATOR_BASE_URL has to begin with https://."),
    "dropped midway": (c.dropped_midway, "dropped the connection."),
    "hang": (c.hang, "did not answer in time."),
}


@pytest.mark.parametrize("fault", PERMANENT)
async def test_a_lasting_fault_fails_at_once_with_one_line(endpoint, make_pool, fault):
    endpoint.behaviour, sentence = PERMANENT[fault]
    result = await make_pool().call("AnswerGenerate", "q")
    assert (result.failed, result.rejected, result.requests) == (True, False, 1)
    assert result.text == UNAVAILABLE
    assert result.error.startswith(f"The operator endpoint {endpoint.url} ")
    assert sentence in result.error
    assert "\n" not in result.error


TOO_LONG = {
    "vLLM": "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens.",
    "OpenAI": "Input exceeds the context window of this model.",
    "SGLang": "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
}


@pytest.mark.parametrize("server", TOO_LONG)
async def test_an_input_that_is_too_long_is_the_policys_own_mistake(endpoint, make_pool, server):
    endpoint.behaviour = c.status(400, TOO_LONG[server])
    result = await make_pool().call("AnswerGenerate", "word " * 9000)
    assert (result.failed, result.rejected, result.requests) == (False, True, 1)
    assert result.text == "The input is too long for AnswerGenerate: shorten it."


async def test_a_prompt_that_is_too_long_without_the_policys_doing_is_a_failure(endpoint, make_pool):
    endpoint.behaviour = c.status(400, TOO_LONG["vLLM"])
    result = await make_pool().call("AnswerGenerate", "Who?")
    assert (result.failed, result.rejected) == (True, False)
    assert "maximum context length" in result.error


async def test_a_reply_too_long_to_be_asked_again_with_is_used_as_it_is(endpoint, make_pool):
    endpoint.script.extend([c.reply("It is Paris."), c.status(400, TOO_LONG["vLLM"])])
    result = await make_pool().call("AnswerGenerate", "Who?")
    assert (result.text, result.failed, result.reasks) == ("It is Paris.", False, 1)


@pytest.mark.parametrize("fault", PASSING)
async def test_a_passing_fault_is_retried(endpoint, make_pool, fault):
    behaviour, _ = PASSING[fault]
    endpoint.script.extend([behaviour, behaviour])
    result = await make_pool(attempt_timeout=0.2).call("AnswerGenerate", "q")
    assert (result.text, result.failed, result.requests, result.retries) == ("Paris", False, 3, 2)


@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_does_not_pass_fails_with_one_line(endpoint, make_pool, fault):
    endpoint.behaviour, sentence = PASSING[fault]
    result = await make_pool(attempt_timeout=0.1, max_retries=1).call("AnswerGenerate", "q")
    assert (result.failed, result.requests, result.text) == (True, 2, UNAVAILABLE)
    assert result.error.endswith(sentence)


async def test_an_endpoint_that_is_not_there_fails_with_one_line(endpoint, make_pool):
    await endpoint.stop()
    result = await make_pool(max_retries=1).call("AnswerGenerate", "q")
    assert (result.failed, result.text) == (True, UNAVAILABLE)
    assert result.error.endswith("cannot be reached: check that it runs and that OPERATOR_BASE_URL is right.")


async def test_the_key_is_in_no_log_error_or_result(endpoint, make_pool, caplog):
    caplog.set_level(logging.DEBUG)
    pool = make_pool(attempt_timeout=0.1, max_retries=1)
    seen = repr(pool.settings)
    for behaviour, _ in [(c.result("x"), ""), *PERMANENT.values(), *PASSING.values()]:
        endpoint.behaviour = behaviour
        seen += repr(await pool.call("AnswerGenerate", "q"))
        try:
            await pool.check()
        except OperatorEndpointError as error:
            seen += "".join(traceback.format_exception(error)) + repr(vars(error))
    assert len(caplog.records) > 50
    assert "Bearer" not in caplog.text
    assert c.KEY not in caplog.text
    assert c.KEY not in seen


async def test_retry_after_is_honoured(endpoint, make_pool):
    endpoint.script.append(c.status(429, headers={"Retry-After": "0.3"}))
    assert (await make_pool().call("AnswerGenerate", "q")).retries == 1
    assert endpoint.times[1] - endpoint.times[0] >= 0.3


async def test_a_retry_after_beyond_the_deadline_fails_at_once(endpoint, make_pool):
    endpoint.behaviour = c.status(503, headers={"Retry-After": "3600"})
    result = await make_pool(call_timeout=5).call("AnswerGenerate", "q")
    assert (result.failed, result.requests) == (True, 1)
    assert result.seconds < 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-1", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after({"retry-after": value}, now=100.0) == seconds


async def test_the_deadline_of_a_call_spans_its_attempts(endpoint, make_pool):
    endpoint.behaviour = c.hang
    result = await make_pool(attempt_timeout=0.2, call_timeout=0.5, max_retries=100).call("AnswerGenerate", "q")
    assert result.failed
    assert 2 <= result.requests <= 3
    assert 0.4 <= result.seconds < 2


async def test_check_returns_the_round_trip(endpoint, make_pool):
    round_trips = await make_pool().check()
    assert list(round_trips) == ["main"]
    assert 0 < round_trips["main"] < 10
    assert endpoint.bodies[0]["model"] == "small"


async def test_check_names_the_models_that_are_served_instead(endpoint, make_pool):
    endpoint.behaviour = c.status(404, "no such model")
    with pytest.raises(OperatorEndpointError, match=r"check OPERATOR_MODEL_NAME.* It serves: small, large\.$"):
        await make_pool().check()


async def test_check_says_what_to_do_about_the_key_and_about_a_missing_endpoint(endpoint, make_pool):
    endpoint.behaviour = c.status(401)
    with pytest.raises(OperatorEndpointError, match="set OPERATOR_API_KEY"):
        await make_pool().check()
    await endpoint.stop()
    with pytest.raises(OperatorEndpointError, match="check that it runs and that OPERATOR_BASE_URL is right"):
        await make_pool().check()
