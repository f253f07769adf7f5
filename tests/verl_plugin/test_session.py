"""Token bookkeeping of a rollout, against the tokens that were sampled."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from support.agent_loop import BareAgentLoop, FakeServer
from support.qwen_like_tokenizer import qwen_like_tokenizer
from support.sessions import QUESTION, assert_holds_what_was_sampled, new_session, play, response_ids
from transformers import PreTrainedTokenizerBase

from workflow_r1.trajectory import EndedBy
from workflow_r1.verl_plugin.session import VerlSession
from workflow_r1.world.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(["who directed Velmora ?", "Anker", "AnswerGenerate: ", "think first"])
CALL = "<think>think first</think><tool>AnswerGenerate: who directed Velmora ?</tool>"
ANSWER = "<think>think first</think><answer>Anker</answer>"


async def session_on(texts: Sequence[str], response_length: int = 200) -> tuple[VerlSession, FakeServer]:
    return await new_session(TOKENIZER, texts, response_length)


async def test_ids_mask_and_logprobs_are_the_sampled_ones_token_by_token():
    session, server = await session_on([CALL, CALL, ANSWER])
    turns = await play(session, ["<info>Anker</info>", "<info>Anker</info>"])
    assert_holds_what_was_sampled(session, server)
    for turn, text in zip(turns, [CALL, CALL, ANSWER], strict=True):
        start, end = turn.tokens
        assert response_ids(session)[start:end] == TOKENIZER.encode(text)
        assert session.response_mask[start:end] == [1] * (end - start)
        assert turn.text == text


async def test_what_the_template_is_told_may_be_nested_as_hydra_hands_it_over():
    loop = BareAgentLoop(TOKENIZER, FakeServer(TOKENIZER, [ANSWER]), 200)
    loop.apply_chat_template_kwargs = OmegaConf.create({"documents": [{"title": "a"}], "enable_thinking": False})
    session = VerlSession(loop, QUESTION, {}, 0)
    assert (await session.take_turn(1)).text == ANSWER


async def test_the_context_is_what_the_chat_template_renders():
    session, _ = await session_on([CALL, ANSWER])
    await play(session, ["<info>Anker</info>"])
    messages = [
        *QUESTION,
        {"role": "assistant", "content": CALL},
        {"role": "tool", "content": "<info>Anker</info>"},
        {"role": "assistant", "content": ANSWER},
    ]
    rendered = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert TOKENIZER.decode(session.token_ids) + "<|im_end|>\n" == rendered


async def test_an_end_of_turn_that_the_policy_sampled_is_its_own_and_not_added_again():
    session, server = await session_on([CALL + "<|im_end|>", ANSWER])
    await play(session, ["<info>Anker</info>"])
    assert_holds_what_was_sampled(session, server)
    assert "<|im_end|><|im_end|>" not in TOKENIZER.decode(response_ids(session))


async def test_every_turn_is_sampled_from_the_tokens_so_far_with_the_protocols_stops():
    session, server = await session_on([CALL, ANSWER])
    await play(session, ["<info>Anker</info>"])
    first, second = server.requests
    assert first["prompt_ids"] == session.prompt_ids
    assert session.token_ids[: len(second["prompt_ids"])] == second["prompt_ids"]
    assert first["stop"] == ["</tool>", "</answer>"]
    assert first["include_stop_str_in_output"] is True
    assert first["id"] == second["id"]
    assert session.extra_fields == {"min_global_steps": 1, "max_global_steps": 2}


async def test_parallel_calls_are_one_turn_up_to_the_limit():
    more = "<tool>AnswerGenerate: Anker</tool>"
    session, _ = await session_on([CALL, more, more, ANSWER])
    turn = await session.take_turn(max_calls=2)
    assert turn.text == CALL + more
    assert session.response_mask == [1] * turn.tokens[1]


async def test_a_policy_that_ends_its_turn_after_a_call_makes_no_second_one():
    session, server = await session_on([CALL, "<|im_end|>", ANSWER])
    turn = await session.take_turn(max_calls=3)
    assert turn.text == CALL
    assert turn.cut_by is None
    assert len(server.requests) == 2


async def test_the_token_budget_cuts_a_turn_and_says_so():
    session, _ = await session_on([CALL], response_length=4)
    turn = await session.take_turn(1)
    assert turn.cut_by is EndedBy.LENGTH_LIMIT
    assert len(session.response_mask) == 4


@pytest.mark.parametrize("text", [CALL, ANSWER, "no tags<|im_end|>"])
async def test_a_turn_of_exactly_the_cap_is_whole_and_one_more_token_is_cut(text: str):
    length = len(TOKENIZER.encode(text))
    for most, cut_by in ((length, None), (length + 1, None), (length - 1, EndedBy.TURN_LENGTH_LIMIT)):
        session, server = await session_on([text, text])
        turn = await session.take_turn(1, most)
        assert (turn.cut_by, turn.tokens) == (cut_by, (0, min(length, most)))
        assert server.requests[0]["max_tokens"] == most


async def test_the_cap_holds_for_each_turn_and_for_the_calls_of_a_turn_together():
    length = len(TOKENIZER.encode(CALL))
    session, server = await session_on([CALL, CALL, CALL, CALL], response_length=500)
    assert (await session.take_turn(2, 2 * length)).cut_by is None
    await session.observe("<info>Anker</info>")
    turn = await session.take_turn(2, 2 * length - 1)
    assert turn.cut_by is EndedBy.TURN_LENGTH_LIMIT
    assert [request["max_tokens"] for request in server.requests] == [2 * length, length, 2 * length - 1, length - 1]


async def test_a_second_call_for_which_the_cap_has_no_token_is_not_begun():
    session, server = await session_on([CALL, CALL])
    turn = await session.take_turn(2, len(TOKENIZER.encode(CALL)))
    assert (turn.text, turn.cut_by, len(server.requests)) == (CALL, None, 1)


async def test_where_the_budget_ends_first_it_is_the_limit():
    session, _ = await session_on([CALL], response_length=4)
    assert (await session.take_turn(1, 4)).cut_by is EndedBy.LENGTH_LIMIT


async def test_an_observation_without_room_changes_nothing():
    length = len(TOKENIZER.encode(CALL))
    session, _ = await session_on([CALL, ANSWER], response_length=length + 3)
    await session.take_turn(1)
    before = list(session.token_ids), list(session.response_mask)
    assert not await session.observe("<info>Anker Anker Anker</info>")
    assert (session.token_ids, session.response_mask) == before


async def test_servers_without_logprobs_are_fine():
    session, server = await session_on([CALL, ANSWER])
    generate = server.generate

    async def without(**kwargs):
        output = await generate(**kwargs)
        output.log_probs = None
        return output

    server.generate = without
    await play(session, ["<info>Anker</info>"])
    assert session.response_logprobs is None


_TURNS = st.sampled_from([CALL, ANSWER, CALL + "<|im_end|>", CALL + "\n", "no tags<|im_end|>", "odd “text” 42 日本 🎈"])
# A policy may sample any tokens at all: halves of characters, special tokens, tags in pieces of its own.
_TOKENS = st.lists(st.integers(0, len(qwen_like_tokenizer()) - 1), min_size=1, max_size=40)


@settings(max_examples=25)
@given(samples=st.lists(_TURNS | st.text(min_size=1) | _TOKENS, min_size=1, max_size=4), length=st.integers(1, 120))
@pytest.mark.parametrize("tokenizer", [TOKENIZER, qwen_like_tokenizer()], ids=["whole words", "bytes and tag pieces"])
def test_whatever_is_sampled_the_sequences_stay_aligned(
    tokenizer: PreTrainedTokenizerBase, samples: list[str | list[int]], length: int
):
    async def check() -> None:
        session, server = await new_session(tokenizer, samples, length)
        turns = await play(session, ["<info>Anker “日本” 🎈</info>"] * (len(samples) - 1))
        assert_holds_what_was_sampled(session, server)
        assert len(session.response_mask) <= length
        for turn in turns:
            start, end = turn.tokens
            assert session.response_mask[start:end] == [1] * (end - start)
            sampled = tokenizer.decode(response_ids(session)[start:end], skip_special_tokens=True)
            assert sampled.startswith(turn.text)

    asyncio.run(check())
