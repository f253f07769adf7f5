"""A policy session over chat completions: the counterpart of training's session on verl's servers."""

import re
import time
from dataclasses import dataclass
from typing import Any

from workflow_r1.evaluation.endpoint import Completion, Message, PolicyEndpoint
from workflow_r1.evaluation.errors import ContextLengthError, PolicyEndpointError
from workflow_r1.operators.request import TEMPLATE_TOKENS, most_prompt_tokens
from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.rollout import GeneratedTurn

_ACTION = re.compile(r"<(/?)(tool|answer)>")
_STOP = re.compile("|".join(map(re.escape, STOP_STRINGS)))


@dataclass(frozen=True)
class Sampling:
    """How the policy's turns are sampled.

    Attributes:
        max_response_tokens: tokens of all turns and observations of one question together. An observation counts once
            the endpoint has counted it, so the last turn may run over by the length of one.
        seed: names the sample, where the temperature is above 0.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_response_tokens: int = 8192
    seed: int = 0


class EndpointSession:
    """One conversation with a policy behind an endpoint.

    Attributes:
        prompt_tokens: what the endpoint has counted over all turns, each with the whole conversation before it.
        completion_tokens: likewise.
    """

    def __init__(self, endpoint: PolicyEndpoint, messages: list[Message], sampling: Sampling) -> None:
        self._endpoint = endpoint
        self._messages = list(messages)
        self._sampling = sampling
        self._first_prompt = 0  # tokens of the prompt before the first turn
        self._context = 0  # tokens up to the end of the last turn
        self._turns = 0
        self._unread = most_prompt_tokens(messages)
        self.prompt_tokens = 0
        self.completion_tokens = 0

    @property
    def _tokens_left(self) -> int:
        return self._sampling.max_response_tokens - (self._context - self._first_prompt)

    async def take_turn(self, max_calls: int) -> GeneratedTurn:
        """As `PolicySession.take_turn`.

        Raises:
            PolicyEndpointError: the endpoint could not serve the turn.
        """
        started = time.perf_counter()
        try:
            completion = await self._endpoint.complete(self._messages, **self._request(max_calls))
        except ContextLengthError as error:
            if not self._turns:
                hint = "Lower --max-response-tokens, or serve the model with a longer context."
                raise PolicyEndpointError(f"{error} {hint}", error.status) from None
            end = self._context - self._first_prompt
            return GeneratedTurn("", (end, end), complete=False, seconds=time.perf_counter() - started)
        self._count(completion)
        text = closed_turn(completion, max_calls)
        self._messages.append({"role": "assistant", "content": text})
        end = self._context - self._first_prompt
        return GeneratedTurn(
            text=text,
            tokens=(end - completion.completion_tokens, end),
            complete=completion.finish_reason != "length" or text.endswith(STOP_STRINGS),
            seconds=time.perf_counter() - started,
        )

    def _request(self, max_calls: int) -> dict[str, Any]:
        sampling = self._sampling
        request: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if sampling.temperature > 0:
            request["seed"] = (sampling.seed + self._turns) % 2**31
        # Where several calls fit in a turn, the policy goes on after a </tool> until it ends the turn itself.
        request["stop"] = list(STOP_STRINGS) if max_calls == 1 else [STOP_STRINGS[1]]
        # vLLM refuses a max_tokens that does not fit, and without one generates what fits. A token has at least a byte.
        room = self._endpoint.context_length
        if room is None or self._context + self._unread + self._tokens_left <= room:
            request["max_tokens"] = self._tokens_left
        return request

    def _count(self, completion: Completion) -> None:
        if not self._turns:
            self._first_prompt = completion.prompt_tokens
        self._turns += 1
        self._context = completion.prompt_tokens + completion.completion_tokens
        self._unread = 0
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens

    async def observe(self, observation: str) -> bool:
        """As `PolicySession.observe`."""
        if self._tokens_left <= 0:
            return False
        message = {"role": self._endpoint.observation_role, "content": observation}
        self._messages.append(message)
        self._unread = most_prompt_tokens([message]) + TEMPLATE_TOKENS  # of the turn before it, after its text
        return True


def closed_turn(completion: Completion, max_calls: int) -> str:
    """The turn's text with the stop string that the server stripped put back, and nothing after the turn's end.

    Where the server does not say what ended the text, an action that is left open was ended by its stop string.
    """
    text, stop = completion.text, completion.stop_string
    if completion.finish_reason == "stop" and not text.endswith(STOP_STRINGS):
        text += _closing_of_last_action(text) if stop is None else stop
    for number, end in enumerate(_STOP.finditer(text), start=1):
        if end[0] == STOP_STRINGS[1] or number == max_calls:
            return text[: end.end()]
    return text


def _closing_of_last_action(text: str) -> str:
    """The closing tag that the last action opened in `text` lacks; nothing where it lacks none."""
    name = ""
    for tag in _ACTION.finditer(text):
        if not tag[1]:
            name = tag[2]
        elif tag[2] == name:
            name = ""
    return f"</{name}>" if name else ""
