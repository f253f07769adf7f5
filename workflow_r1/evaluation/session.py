"""A policy session over chat completions: the counterpart of training's session on verl's servers."""

import re
import time
from dataclasses import dataclass
from typing import Any

from workflow_r1.evaluation.endpoint import Message, PolicyEndpoint, system_into_question
from workflow_r1.evaluation.errors import ContextLengthError, EvaluationError, PolicyEndpointError
from workflow_r1.observation import estimated_tokens
from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.records import total
from workflow_r1.rollout import GeneratedTurn
from workflow_r1.services.completion import Completion
from workflow_r1.services.request import TEMPLATE_TOKENS, most_prompt_tokens

_ACTION = re.compile(r"<(/?)(tool|answer)>")
_STOP = re.compile("|".join(map(re.escape, STOP_STRINGS)))


@dataclass(frozen=True)
class PolicySampling:
    """How the policy's turns are sampled.

    Attributes:
        max_response_tokens: tokens of all turns and observations of one question together. An observation counts once
            the endpoint has counted it, so the last turn may run over by the length of one.
        seed: names the sample, where the temperature is above 0.
    """

    temperature: float
    top_p: float
    max_response_tokens: int
    seed: int = 0


class EndpointSession:
    """One conversation with a policy behind an endpoint.

    Attributes:
        prompt_tokens: what the endpoint has counted over all turns, each with the whole conversation before it; None
            where it has not counted one.
        completion_tokens: likewise.
    """

    def __init__(self, endpoint: PolicyEndpoint, messages: list[Message], sampling: PolicySampling) -> None:
        self._endpoint = endpoint
        self._messages = list(messages) if endpoint.has_system_role else system_into_question(messages)
        self._sampling = sampling
        self._first_prompt = 0  # tokens of the prompt before the first turn
        self._context = 0  # tokens up to the end of the last turn
        self._turns = 0
        self._unread = self._messages[:]
        self.prompt_tokens: int | None = 0
        self.completion_tokens: int | None = 0

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
            request = self._request(max_calls)
            completion = await self._endpoint.complete(self._messages, **request)
        except ContextLengthError as error:
            if not self._turns:
                hint = "Lower --max-response-tokens, or serve the model with a longer context."
                raise PolicyEndpointError(f"{error} {hint}", error.status) from None
            end = self._context - self._first_prompt
            return GeneratedTurn("", (end, end), complete=False, seconds=time.perf_counter() - started)
        self._check(completion, request)
        tokens = self._count(completion)
        text = closed_turn(completion, max_calls)
        self._messages.append({"role": "assistant", "content": text})
        end = self._context - self._first_prompt
        return GeneratedTurn(
            text=text,
            tokens=(end - tokens, end),
            complete=not completion.is_cut or text.endswith(STOP_STRINGS),
            seconds=time.perf_counter() - started,
        )

    def _check(self, completion: Completion, request: dict[str, Any]) -> None:
        """Refuse a turn that is not what the policy wrote, rather than score it."""
        endpoint = self._endpoint
        fault = why_unreadable(completion)
        if fault is None and not endpoint.has_served and _is_cut_early(completion, {**request, **endpoint.fields}):
            fault = (
                f"cut the first turn ({completion.finish_reason}) where {request['max_tokens']:,} tokens were left: "
                "serve the model with a longer context and no limit of the server's own, or lower --max-response-tokens"
            )
        if fault is None:
            endpoint.has_served = True
            return
        sentence = f"The policy endpoint {endpoint.base_url} {fault}."
        # What holds for the first turn of all holds for those after it: asking on would only take time.
        raise PolicyEndpointError(sentence) if endpoint.has_served else EvaluationError(sentence)

    def _request(self, max_calls: int) -> dict[str, Any]:
        sampling = self._sampling
        request: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if sampling.temperature > 0:
            request["seed"] = (sampling.seed + self._turns) % 2**31
        # Where several calls fit in a turn, the policy goes on after a </tool> until it ends the turn itself.
        request["stop"] = list(STOP_STRINGS) if max_calls == 1 else [STOP_STRINGS[1]]
        # vLLM refuses a max_tokens that does not fit, and without one generates what fits. A token has at least a byte.
        room = self._endpoint.context_length
        # Behind a turn comes what the template puts after its text.
        unread = most_prompt_tokens(self._unread) + (TEMPLATE_TOKENS if self._turns else 0)
        if room is None or self._context + unread + self._tokens_left <= room:
            request["max_tokens"] = self._tokens_left
        return request

    def _count(self, completion: Completion) -> int:
        """Account for a turn and return its tokens; where the endpoint does not count them, what bounds go by."""
        prompt, tokens = completion.prompt_tokens, completion.completion_tokens
        self.prompt_tokens = total([self.prompt_tokens, prompt])
        self.completion_tokens = total([self.completion_tokens, tokens])
        tokens = estimated_tokens(completion.reasoning + completion.text) if tokens is None else tokens
        if prompt is None:
            prompt = self._context + sum(estimated_tokens(message["content"]) for message in self._unread)
        if not self._turns:
            self._first_prompt = prompt
        self._turns += 1
        self._context = prompt + tokens
        self._unread = []
        return tokens

    async def observe(self, observation: str) -> bool:
        """As `PolicySession.observe`."""
        if self._tokens_left <= 0:
            return False
        message = {"role": self._endpoint.observation_role, "content": observation}
        self._messages.append(message)
        self._unread = [message]
        return True


def closed_turn(completion: Completion, max_calls: int) -> str:
    """The turn's text with the stop string that the server stripped put back, and nothing after the turn's end.

    Where the server does not say what ended the text, an action that is left open was ended by its stop string.
    """
    text, stop = _with_thoughts(completion), completion.stop_string
    if not completion.is_cut and not text.endswith(STOP_STRINGS):
        text += _closing_of_last_action(text) if stop is None else stop
    for number, end in enumerate(_STOP.finditer(text), start=1):
        if end[0] == STOP_STRINGS[1] or number == max_calls:
            return text[: end.end()]
    return text


def _with_thoughts(completion: Completion) -> str:
    """The text with the thought in its place that a reasoning parser of the server, or the prompt, took out of it."""
    text, thoughts = completion.text, completion.reasoning
    if text.lstrip().startswith("<think>"):  # a model may think before it writes a turn
        return text
    if not thoughts:
        # Some chat templates open the thought in their generation prompt, which no server sends.
        return f"<think>{text}" if "</think>" in text and "<think>" not in text else text
    thoughts = thoughts if thoughts.lstrip().startswith("<think>") else f"<think>{thoughts}"
    # Without a text, the parser found no end of the thought.
    return f"{thoughts}</think>{text}" if text else thoughts


def _closing_of_last_action(text: str) -> str:
    """The closing tag that the last action opened in `text` lacks; nothing where it lacks none."""
    name = ""
    for tag in _ACTION.finditer(text):
        if not tag[1]:
            name = tag[2]
        elif tag[2] == name:
            name = ""
    return f"</{name}>" if name else ""


def why_unreadable(completion: Completion) -> str | None:
    """What keeps a completion from being what the policy wrote, and which setting of the server to change; or None."""
    if completion.has_tool_calls:
        return (
            "made a tool call out of the policy's text: serve the model without tool-call parsing (vLLM: without "
            "--enable-auto-tool-choice and --tool-call-parser)"
        )
    if completion.is_withheld:
        return f"withheld the policy's text ({completion.finish_reason}): serve the model without a content filter"
    if completion.hides_thoughts:
        return (
            "generated text that it did not send: have it return the thoughts too, by serving the model without "
            "reasoning parsing (vLLM, SGLang: without --reasoning-parser)"
        )
    return None


def _is_cut_early(completion: Completion, request: dict[str, Any]) -> bool:
    """Whether the server ended a turn by a limit of its own, below the one that was asked for."""
    most = request.get("max_tokens")
    counted = completion.completion_tokens
    if counted is None:  # a token has at least a byte
        counted = len(_with_thoughts(completion).encode())
    return completion.is_cut and most is not None and counted < most
