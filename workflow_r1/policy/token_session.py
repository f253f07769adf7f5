"""A policy session in tokens: what the policy sampled stands in the context as it was sampled."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow_r1.policy.chat_format import ChatFormat
from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.rollout import GeneratedTurn
from workflow_r1.trajectory import EndedBy


@dataclass(frozen=True)
class Sample:
    """Tokens that the policy sampled, the one that stopped it included.

    Attributes:
        logprobs: of each token; None where the sampler gives none.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float] | None = None


class TokenSession(ABC):
    """The growing token sequence of one trajectory. What differs between its kinds is who samples.

    Attributes:
        prompt_ids: the prompt's tokens.
        token_ids: prompt and response.
        response_mask: 1 on sampled tokens, 0 on everything that joins and answers them.
        response_logprobs: the sampler's log-probabilities, 0.0 where the mask is 0; None if it gives none.
    """

    def __init__(self, chat: ChatFormat, messages: Sequence[Mapping[str, str]], response_length: int):
        self._chat = chat
        self._response_length = response_length
        self._turns = 0
        self.prompt_ids = chat.prompt_ids(messages)
        self.token_ids = list(self.prompt_ids)
        self.response_mask: list[int] = []
        self.response_logprobs: list[float] | None = None

    @abstractmethod
    async def _sample(self, max_tokens: int, stops: Mapping[str, Any]) -> Sample:
        """Sample after `token_ids`.

        Args:
            stops: the sampling parameters that end a sample, by vLLM's names.
        """

    @property
    def tokens_left(self) -> int:
        return self._response_length - len(self.response_mask)

    async def take_turn(self, max_calls: int, max_tokens: int | None = None) -> GeneratedTurn:
        """As `PolicySession.take_turn`."""
        started, start = time.perf_counter(), len(self.response_mask)
        most = self._response_length if max_tokens is None else min(start + max_tokens, self._response_length)
        before = self.token_ids, self.response_mask, self.response_logprobs
        stop = None
        try:
            # Generation stops at every </tool>; where parallel calls are on, the policy then goes on in the same turn
            # until it ends the turn itself.
            for _ in range(max_calls):
                generated = await self._generate(most)
                stop = self._stop_string(start)
                if stop != "</tool>" or not generated:
                    break
        except asyncio.CancelledError:
            self.token_ids, self.response_mask, self.response_logprobs = before
            raise
        text = self._text(start)
        opening = self._chat.openings[min(self._turns, 1)]
        self._turns += 1
        text = text if stop is None else text[: text.rindex(stop) + len(stop)]
        return GeneratedTurn(
            # Some policies open the thought that their prompt has opened already.
            text=text if text.lstrip().startswith(opening) else opening + text,
            tokens=(start, len(self.response_mask)),
            seconds=time.perf_counter() - started,
            cut_by=None if stop is not None or self._ended_by_policy() else self._limit_at(most),
        )

    def _limit_at(self, most: int) -> EndedBy | None:
        if len(self.response_mask) < most:
            return None
        return EndedBy.LENGTH_LIMIT if most == self._response_length else EndedBy.TURN_LENGTH_LIMIT

    def _stop_string(self, start: int) -> str | None:
        """The stop string that the last sampled token completed; that token may carry a few characters more."""
        text, before = self._text(start), self._text(start, len(self.response_mask) - 1)
        return next((stop for stop in STOP_STRINGS if text.count(stop) > before.count(stop)), None)

    def _ended_by_policy(self) -> bool:
        return bool(self.response_mask) and self.token_ids[-1] in self._chat.end_ids

    def _text(self, start: int, end: int | None = None) -> str:
        return self._chat.text(self.token_ids[len(self.prompt_ids) :][start:end])

    async def _generate(self, most: int) -> bool:
        """Sample up to the next stop, or until the response has `most` tokens; False if it has them already."""
        if len(self.response_mask) >= most:
            return False
        stops = {
            "stop": list(STOP_STRINGS),
            "include_stop_str_in_output": True,
            "stop_token_ids": self._chat.end_ids,
            "skip_special_tokens": False,  # vLLM looks for the stop strings in the text that this leaves
        }
        sample = await self._sample(most - len(self.response_mask), stops)
        self._append(sample.token_ids, 1, sample.logprobs)
        return bool(sample.token_ids)

    async def observe(self, observation: str) -> bool:
        """As `PolicySession.observe`; what it takes to close the turn counts as not sampled."""
        ids = self._chat.observation_ids(self.token_ids[-1], observation)
        if len(ids) >= self.tokens_left:
            return False
        self._append(ids, 0, None)
        return True

    def _append(self, ids: Sequence[int], mask: int, logprobs: Sequence[float] | None) -> None:
        if logprobs and self.response_logprobs is None:
            self.response_logprobs = [0.0] * len(self.response_mask)
        self.token_ids = [*self.token_ids, *ids]
        self.response_mask = [*self.response_mask, *[mask] * len(ids)]
        if self.response_logprobs is not None:
            self.response_logprobs = [*self.response_logprobs, *(logprobs or [0.0] * len(ids))]
