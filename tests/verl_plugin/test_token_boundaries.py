"""Tokens that do not end where the protocol's tags and the text's characters do, as in Qwen's vocabulary."""

import pytest
from support.qwen_like_tokenizer import qwen_like_tokenizer
from support.sessions import QUESTION, assert_holds_what_was_sampled, new_session, play, response_ids

from workflow_r1.trajectory import EndedBy

TOKENIZER = qwen_like_tokenizer()
CALL = "<think>who?</think><tool>AnswerGenerate: who directed Velmora ?</tool>"
ANSWER = "<think>so</think><answer>Anker</answer>"
BYTES = {TOKENIZER.decode([token]): token for token in range(len(TOKENIZER))}  # of ASCII each byte is a token too


def pieces(text: str) -> list[str]:
    return [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text)]


@pytest.mark.parametrize("tail", ["", "\n", "\n\n", "<"])
@pytest.mark.parametrize("turn_text", [CALL, ANSWER])
async def test_what_the_last_token_carries_past_the_stop_is_kept_and_not_read(turn_text: str, tail: str):
    assert pieces(turn_text + tail)[-3:] == ["</", "tool" if turn_text is CALL else "answer", ">" + tail]
    session, server = await new_session(TOKENIZER, [turn_text + tail])
    turn = await session.take_turn(1)
    assert turn.text == turn_text
    assert turn.cut_by is None
    assert_holds_what_was_sampled(session, server)
    assert TOKENIZER.decode(response_ids(session)) == turn_text + tail


@pytest.mark.parametrize("tail", ["\n", "\n\n", "<"])
async def test_what_it_carries_stays_in_the_context(tail: str):
    session, server = await new_session(TOKENIZER, [CALL + tail, ANSWER])
    turns = await play(session, ["<info>Anker</info>"])
    assert [turn.text for turn in turns] == [CALL, ANSWER]
    assert_holds_what_was_sampled(session, server)
    messages = [
        *QUESTION,
        {"role": "assistant", "content": CALL + tail},
        {"role": "tool", "content": "<info>Anker</info>"},
        {"role": "assistant", "content": ANSWER},
    ]
    rendered = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert TOKENIZER.decode(session.token_ids) + "<|im_end|>\n" == rendered


async def test_a_token_that_closes_one_call_and_opens_the_next_belongs_to_both():
    assert "><" in pieces(CALL + "<tool>")
    session, server = await new_session(TOKENIZER, [CALL + "<", "tool>AnswerGenerate: Anker</tool>\n"])
    turn = await session.take_turn(max_calls=2)
    assert turn.text == CALL + "<tool>AnswerGenerate: Anker</tool>"
    assert_holds_what_was_sampled(session, server)


async def test_a_turn_sampled_in_other_tokens_than_its_text_encodes_to_keeps_them():
    spelled = [BYTES[character] for character in CALL]
    assert spelled != TOKENIZER.encode(CALL)
    session, server = await new_session(TOKENIZER, [spelled, ANSWER])
    turns = await play(session, ["<info>Anker</info>"])
    assert turns[0].text == CALL
    assert response_ids(session)[: len(spelled)] == spelled
    assert_holds_what_was_sampled(session, server)


async def test_a_character_that_the_budget_cuts_in_two_keeps_its_first_bytes():
    text = "<think>日"
    whole = TOKENIZER.encode(text)
    assert len(whole) - len(TOKENIZER.encode("<think>")) == 3
    session, server = await new_session(TOKENIZER, [text], response_length=len(whole) - 1)
    turn = await session.take_turn(1)
    assert turn.cut_by is EndedBy.LENGTH_LIMIT
    assert response_ids(session) == whole[:-1]
    assert_holds_what_was_sampled(session, server)
