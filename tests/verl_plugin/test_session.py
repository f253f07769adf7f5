"""Token bookkeeping of a rollout on verl's own continuous-token code, against the tokens that were sampled."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agent_loop import BareAgentLoop
from verl.workers.rollout.replica import TokenOutput

from workflow_r1.verl_plugin.session import VerlSession, end_of_turn_ids, observation_role
from workflow_r1.world.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(["who directed Velmora ?", "Anker", "AnswerGenerate: ", "think first"])
QUESTION = [{"role": "user", "content": "who directed Velmora ?"}]
CALL = "<think>think first</think><tool>AnswerGenerate: who directed Velmora ?</tool>"
ANSWER = "<think>think first</think><answer>Anker</answer>"


@dataclass
class FakeServer:
    """Samples given texts, token by token, up to `max_tokens`; each token's log-probability is its own number."""

    texts: list[str]
    requests: list[dict] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    async def generate(self, *, request_id, prompt_ids, sampling_params, priority) -> TokenOutput:
        self.requests.append({"id": request_id, "prompt_ids": list(prompt_ids), **sampling_params})
        ids = TOKENIZER.encode(self.texts.pop(0))[: sampling_params["max_tokens"]]
        logprobs = [-float(len(self.sampled) + offset + 1) for offset in range(len(ids))]
        self.sampled += ids
        self.logprobs += logprobs
        steps = {"min_global_steps": len(self.requests), "max_global_steps": len(self.requests)}
        return TokenOutput(token_ids=ids, log_probs=logprobs, extra_fields=steps)


async def new_session(texts: list[str], response_length: int = 200) -> tuple[VerlSession, FakeServer]:
    server = FakeServer(list(texts))
    session = VerlSession(
        BareAgentLoop(TOKENIZER, server, response_length), QUESTION, {"temperature": 1.0, "logprobs": True}, priority=3
    )
    await session.start()
    return session, server


async def play(session: VerlSession, observations: list[str], max_calls: int = 1) -> list:
    turns = [await session.take_turn(max_calls)]
    for observation in observations:
        if not await session.observe(observation):
            break
        turns.append(await session.take_turn(max_calls))
    return turns


def kept(session: VerlSession, values: list) -> list:
    """`values` of the response where the mask is one."""
    return [value for value, mask in zip(values, session.response_mask, strict=True) if mask]


async def test_ids_mask_and_logprobs_are_the_sampled_ones_token_by_token():
    session, server = await new_session([CALL, CALL, ANSWER])
    turns = await play(session, ["<info>Anker</info>", "<info>Anker</info>"])
    response = session.token_ids[len(session.prompt_ids) :]
    assert kept(session, response) == server.sampled
    assert kept(session, session.response_logprobs) == server.logprobs
    assert [lp for lp, mask in zip(session.response_logprobs, session.response_mask, strict=True) if not mask] == [
        0.0
    ] * session.response_mask.count(0)
    for turn, text in zip(turns, [CALL, CALL, ANSWER], strict=True):
        start, end = turn.tokens
        assert response[start:end] == TOKENIZER.encode(text)
        assert session.response_mask[start:end] == [1] * (end - start)
        assert turn.text == text


async def test_the_context_is_what_the_chat_template_renders():
    session, _ = await new_session([CALL, ANSWER])
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
    session, server = await new_session([CALL + "<|im_end|>", ANSWER])
    await play(session, ["<info>Anker</info>"])
    response = session.token_ids[len(session.prompt_ids) :]
    assert kept(session, response) == server.sampled
    assert "<|im_end|><|im_end|>" not in TOKENIZER.decode(response)


async def test_every_turn_is_sampled_from_the_tokens_so_far_with_the_protocols_stops():
    session, server = await new_session([CALL, ANSWER])
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
    session, _ = await new_session([CALL, more, more, ANSWER])
    turn = await session.take_turn(max_calls=2)
    assert turn.text == CALL + more
    assert session.response_mask == [1] * turn.tokens[1]


async def test_a_policy_that_ends_its_turn_after_a_call_makes_no_second_one():
    session, server = await new_session([CALL, "<|im_end|>", ANSWER])
    turn = await session.take_turn(max_calls=3)
    assert turn.text == CALL
    assert turn.complete
    assert len(server.requests) == 2


async def test_the_token_budget_cuts_a_turn_and_says_so():
    session, _ = await new_session([CALL], response_length=4)
    turn = await session.take_turn(1)
    assert not turn.complete
    assert len(session.response_mask) == 4


async def test_an_observation_without_room_changes_nothing():
    length = len(TOKENIZER.encode(CALL))
    session, _ = await new_session([CALL, ANSWER], response_length=length + 3)
    await session.take_turn(1)
    before = list(session.token_ids), list(session.response_mask)
    assert not await session.observe("<info>Anker Anker Anker</info>")
    assert (session.token_ids, session.response_mask) == before


async def test_servers_without_logprobs_are_fine():
    session, server = await new_session([CALL, ANSWER])
    generate = server.generate

    async def without(**kwargs):
        output = await generate(**kwargs)
        output.log_probs = None
        return output

    server.generate = without
    await play(session, ["<info>Anker</info>"])
    assert session.response_logprobs is None


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.sampled_from([CALL, ANSWER, CALL + "<|im_end|>", "no tags<|im_end|>", "odd “text” 42"]),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 120),
)
def test_whatever_is_sampled_the_sequences_stay_aligned(texts, response_length):
    async def check():
        session, server = await new_session(texts, response_length)
        await play(session, ["<info>Anker</info>"] * (len(texts) - 1))
        response = session.token_ids[len(session.prompt_ids) :]
        assert len(response) == len(session.response_mask) == len(session.response_logprobs) <= response_length
        assert kept(session, response) == server.sampled
        assert kept(session, session.response_logprobs) == server.logprobs

    asyncio.run(check())


def test_a_template_without_a_tool_role_gets_user_messages():
    with_tool, without = build_tokenizer(["x"]), build_tokenizer(["x"])
    without.chat_template = (
        "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
        "{{ message.content }}{% endfor %}"
    )
    assert observation_role(with_tool) == "tool"
    assert observation_role(without) == "user"


def test_the_end_of_a_turn_is_read_off_the_chat_template():
    assert end_of_turn_ids(TOKENIZER) == [TOKENIZER.eos_token_id]
    bare = build_tokenizer(["x"])
    bare.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    assert end_of_turn_ids(bare) == []


@pytest.mark.parametrize("tail", [">\n", ">\n\n", "> x"])
async def test_characters_that_the_last_token_carries_past_the_stop_are_not_read(tail, monkeypatch):
    session, _ = await new_session([CALL])
    text = CALL[:-1] + tail
    pieces = {0: "", 1: CALL[:-1], 2: text}
    monkeypatch.setattr(session, "_text", lambda start, end=None: pieces[2 if end is None else 1])
    turn = await session.take_turn(1)
    assert turn.text == CALL
