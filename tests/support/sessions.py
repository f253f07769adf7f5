"""A session on a fake server, played turn by turn."""

from collections.abc import Sequence
from typing import Any

from support.agent_loop import BareAgentLoop, FakeServer
from transformers import PreTrainedTokenizerBase

from workflow_r1.rollout import GeneratedTurn
from workflow_r1.verl_plugin.session import VerlSession

QUESTION = [{"role": "user", "content": "who directed Velmora ?"}]


async def new_session(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[str | list[int]], response_length: int = 200
) -> tuple[VerlSession, FakeServer]:
    server = FakeServer(tokenizer, samples)
    loop = BareAgentLoop(tokenizer, server, response_length)
    session = VerlSession(loop, QUESTION, {"temperature": 1.0, "logprobs": True}, priority=3)
    return session, server


async def play(session: VerlSession, observations: Sequence[str], max_calls: int = 1) -> list[GeneratedTurn]:
    turns = [await session.take_turn(max_calls)]
    for observation in observations:
        if not await session.observe(observation):
            break
        turns.append(await session.take_turn(max_calls))
    return turns


def response_ids(session: VerlSession) -> list[int]:
    return session.token_ids[len(session.prompt_ids) :]


def kept(values: Sequence[Any], mask: Sequence[int]) -> list[Any]:
    """`values` of the response where the mask is one."""
    return [value for value, keep in zip(values, mask, strict=True) if keep]


def assert_holds_what_was_sampled(session: VerlSession, server: FakeServer) -> None:
    """Ids, mask and log-probabilities agree with each other, and with the samples token by token."""
    mask, logprobs = session.response_mask, session.response_logprobs
    assert logprobs is not None
    assert len(response_ids(session)) == len(mask) == len(logprobs)
    assert kept(response_ids(session), mask) == server.sampled
    assert kept(logprobs, mask) == server.logprobs
    assert not any(kept(logprobs, [1 - keep for keep in mask]))
