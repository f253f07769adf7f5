import asyncio
import logging
import random
import re
import traceback

import faulty_endpoint as c
import pytest

from workflow_r1.operators import OperatorConfigError, OperatorEndpointError
from workflow_r1.operators.faults import retry_after

SOLUTIONS = "<query>q</query><solution>Paris</solution><solution>Rome</solution><solution>paris</solution>"


async def test_a_call_sends_the_prompt_and_gives_the_result(endpoint, make_pool):
    result = await make_pool().call("AnswerGenerate", "Capital of France?")
    assert (result.operator, result.text, result.failed, result.rejected) == ("AnswerGenerate", "Paris", False, False)
    assert (result.prompt_tokens, result.completion_tokens, result.requests) == (10, 5, 1)
    assert result.seconds > 0
    body = endpoint.bodies[0]
    assert body["model"] == "small"
    assert body["temperature"] == 0.0
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "<question>\nCapital of France?\n</question>"
    assert endpoint.headers[0]["Authorization"] == f"Bearer {c.KEY}"


async def test_three_answers_are_sampled_at_once_and_differently(endpoint, make_pool):
    replies = iter("abc")

    async def answer(request, body):
        await together(request, body)
        return await c.result(next(replies))(request, body)

    together, endpoint.behaviour = c.together(3), answer
    result = await make_pool().call("MultiAnswerGenerate", "q")
    numbered = re.findall(r"^\[Answer (\d)\] (\w)$", result.text, re.MULTILINE)
    assert [number for number, _ in numbered] == ["1", "2", "3"]
    assert {letter for _, letter in numbered} == set("abc")
    assert all(body["temperature"] > 0 for body in endpoint.bodies)
    assert (result.prompt_tokens, result.requests) == (30, 3)


async def test_no_seed_is_sent_or_all_rollouts_of_a_question_would_share_their_samples(endpoint, make_pool):
    await make_pool().call("MultiAnswerGenerate", "q")
    assert all("seed" not in body for body in endpoint.bodies)


async def test_a_seed_makes_sampled_calls_repeatable_and_their_samples_different(endpoint, make_pool):
    pool = make_pool(seed=7)
    await pool.call("MultiAnswerGenerate", "q")
    assert sorted(body["seed"] for body in endpoint.bodies) == [7, 8, 9]
    await pool.call("AnswerGenerate", "q")
    assert "seed" not in endpoint.bodies[-1]  # nothing is sampled


async def test_one_lost_sample_fails_the_call_and_leaves_nothing_running(endpoint, make_pool):
    endpoint.script.extend([c.status(400)])
    result = await make_pool().call("MultiAnswerGenerate", "q")
    assert result.failed
    assert result.requests == 3
    assert endpoint.in_flight == 0


async def test_the_ensemble_gives_the_solution_that_the_letter_names(endpoint, make_pool):
    endpoint.behaviour = c.reply("<reasoning>A and C agree</reasoning><choice>B</choice>")
    assert (await make_pool().call("ScEnsemble", SOLUTIONS)).text == "Rome"
    assert "[A]\nParis\n\n[B]\nRome\n\n[C]\nparis" in endpoint.bodies[0]["messages"][1]["content"]


@pytest.mark.parametrize("reply", ["<choice>Z</choice>", "no idea", ""])
async def test_without_a_valid_letter_the_most_frequent_solution_is_taken(endpoint, make_pool, reply):
    endpoint.behaviour = c.reply(reply)
    result = await make_pool().call("ScEnsemble", SOLUTIONS)
    assert (result.text, result.reasks) == ("Paris", 1)
    assert "A to C" in endpoint.bodies[1]["messages"][-1]["content"]


async def test_a_reply_without_the_tag_is_asked_again_with_a_hint(endpoint, make_pool):
    endpoint.script.extend([c.reply("It is Paris."), c.result("Paris")])
    result = await make_pool().call("AnswerGenerate", "q")
    assert (result.text, result.reasks, result.retries, result.prompt_tokens) == ("Paris", 1, 0, 20)
    assistant, hint = endpoint.bodies[1]["messages"][-2:]
    assert assistant == {"role": "assistant", "content": "It is Paris."}
    assert hint == {
        "role": "user",
        "content": "Write your result between <result> and </result>, and nothing after it.",
    }


async def test_a_reply_that_never_has_the_tag_is_used_as_it_is(endpoint, make_pool):
    endpoint.behaviour = c.reply("It is Paris.")
    result = await make_pool(max_reasks=2).call("AnswerGenerate", "q")
    assert (result.text, result.reasks, result.failed) == ("It is Paris.", 2, False)


async def test_an_empty_reply_is_asked_again_without_an_empty_message(endpoint, make_pool):
    endpoint.behaviour = c.reply(None)
    result = await make_pool().call("AnswerGenerate", "q")
    assert (result.text, result.failed) == ("(no reply)", False)
    assert all(message["content"] for message in endpoint.bodies[1]["messages"])


async def test_an_unknown_operator_is_rejected_with_the_list_of_those_there_are(endpoint, make_pool):
    result = await make_pool(operators=["Review", "AnswerGenerate"]).call("Search", "q")
    assert (result.operator, result.rejected, result.failed) == ("WarningOp", True, False)
    assert result.text == "There is no operator named Search. Available operators: Review, AnswerGenerate."
    assert endpoint.bodies == []


async def test_a_wrong_input_is_rejected_without_a_request(endpoint, make_pool):
    result = await make_pool().call("Review", "<question>q</question>")
    assert result.rejected
    assert not result.failed
    assert "<solution>" in result.text
    assert endpoint.bodies == []


async def test_a_malformed_turn_gets_its_reason_and_the_list(endpoint, make_pool):
    pool = make_pool(operators=["Review"])
    expected = "The answer is empty. Available operators: Review."
    assert pool.warning("The answer is empty.").text == expected
    assert (await pool.call("WarningOp", "The answer is empty.")).text == expected
    assert endpoint.bodies == []


def test_operators_are_offered_in_the_order_asked_for(make_pool):
    assert [spec.name for spec in make_pool(operators=["Revise", "Custom"]).specs] == ["Revise", "Custom"]
    with pytest.raises(OperatorConfigError, match=r"^There is no operator named 'Reviw': choose from AnswerGenerate, "):
        make_pool(operators=["Reviw"])
    with pytest.raises(OperatorConfigError, match=r"^No operator is on offer"):
        make_pool(operators=[])


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
    "a web page": (c.web_page, "sent something that is not a reply."),
    "dropped connection": (c.dropped, "dropped the connection."),
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


async def test_256_trajectories_call_at_once(endpoint, make_pool):
    endpoint.behaviour = c.together(256)
    pool = make_pool(max_concurrency=256)
    results = await asyncio.gather(*(pool.call("AnswerGenerate", f"q{number}") for number in range(256)))
    assert not any(result.failed for result in results)
    assert endpoint.most_in_flight == 256


async def test_the_concurrency_limit_holds_and_is_served_in_order(endpoint, make_pool):
    async def slow(request, body):
        await asyncio.sleep(0.05)
        return await c.result("Paris")(request, body)

    endpoint.behaviour = slow
    pool = make_pool(max_concurrency=2)
    await asyncio.gather(*(pool.call("AnswerGenerate", f"q{number}") for number in range(20)))
    assert endpoint.most_in_flight == 2
    asked = [int(body["messages"][1]["content"].split("\n")[1][1:]) for body in endpoint.bodies]
    assert all(abs(number - place) <= 1 for place, number in enumerate(asked))  # two in flight may swap


async def test_waiting_for_a_slot_does_not_count_towards_the_deadline(endpoint, make_pool):
    async def slow(request, body):
        await asyncio.sleep(0.1)
        return await c.result("Paris")(request, body)

    endpoint.behaviour = slow
    pool = make_pool(max_concurrency=1, call_timeout=0.3)
    results = await asyncio.gather(*(pool.call("AnswerGenerate", "q") for _ in range(5)))
    assert not any(result.failed for result in results)
    assert max(result.seconds for result in results) > 0.4


async def test_a_cancelled_call_gives_its_slot_back(endpoint, make_pool):
    pool = make_pool(max_concurrency=1)
    endpoint.script.append(c.hang)
    call = asyncio.create_task(pool.call("AnswerGenerate", "q"))
    await endpoint.asked.wait()
    call.cancel()
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"


async def test_a_closed_pool_opens_again_when_called(make_pool):
    pool = make_pool()
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"
    await pool.aclose()
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"


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


async def test_no_call_is_lost_to_a_bad_endpoint_and_its_outage(endpoint, make_pool):
    """A fifth of the requests refused, 8 % hang, break or drop, and for a while nothing is answered at all."""
    rng, started = random.Random(0), asyncio.get_running_loop().time()
    faults = [c.status(429), c.status(500), c.hang, c.truncated_json, c.dropped, c.result("Paris")]

    async def bad(request, body):
        if 0.2 < asyncio.get_running_loop().time() - started < 0.6:
            return await c.status(503)(request, body)
        (behaviour,) = rng.choices(faults, (10, 10, 3, 3, 2, 72))
        return await behaviour(request, body)

    endpoint.behaviour = bad
    pool = make_pool(attempt_timeout=0.3, breaker_cooldown=0.05, max_concurrency=20, max_retries=20)

    async def trajectory(number: int) -> list[str]:
        return [(await pool.call("AnswerGenerate", f"{number} {turn}", f"{number}")).text for turn in range(4)]

    texts = await asyncio.gather(*(trajectory(number) for number in range(40)))
    assert texts == [["Paris"] * 4] * 40
    usage = pool.usage.total
    assert (usage.calls, usage.failed, usage.requests) == (160, 0, len(endpoint.bodies))
    assert usage.retries == usage.requests - 160
