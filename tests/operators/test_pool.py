"""What a call sends, what it gives, and what is asked again or rejected."""

import re

import pytest
import support.faulty_endpoint as c

from workflow_r1.operators import OperatorConfigError

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
    assert (await pool.warn("The answer is empty.")).text == "The answer is empty. Available operators: Review."
    assert endpoint.bodies == []


def test_operators_are_offered_in_the_order_asked_for(make_pool):
    assert [spec.name for spec in make_pool(operators=["Revise", "Custom"]).specs] == ["Revise", "Custom"]
    with pytest.raises(OperatorConfigError, match=r"^There is no operator named 'Reviw': choose from AnswerGenerate, "):
        make_pool(operators=["Reviw"])
    with pytest.raises(OperatorConfigError, match=r"^No operator is on offer"):
        make_pool(operators=[])


async def test_a_closed_pool_opens_again_when_called(make_pool):
    pool = make_pool()
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"
    await pool.aclose()
    assert (await pool.call("AnswerGenerate", "q")).text == "Paris"
