"""One client for the endpoint: pooled connections, a bound on concurrency, deadlines and retries.

The retries are ours rather than the openai client's because one deadline spans them all, the wait
for a slot does not count towards it, the breaker sees every attempt, and truncated JSON is retried
too.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from openai import AsyncOpenAI, DefaultAioHttpClient
from pydantic import BaseModel, Field, ValidationError

from workflow_r1.operators.breaker import CircuitBreaker
from workflow_r1.operators.errors import OperatorEndpointError
from workflow_r1.operators.faults import MalformedReplyError, endpoint_error
from workflow_r1.operators.settings import OperatorSettings
from workflow_r1.operators.spec import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatRequest:
    """What makes a completion the one it is: two equal requests may share a reply.

    Attributes:
        seed: the sample's index where several are drawn, else None.
    """

    model: str
    messages: Sequence[Message]
    temperature: float
    max_tokens: int
    seed: int | None = None

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(self.messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return body if self.seed is None else {**body, "seed": self.seed}


@dataclass
class Tally:
    """What one operator call took, counted while it runs; see `OperatorResult`."""

    requests: int = 0
    retries: int = 0
    reasks: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatClient:
    """Makes chat completions. Belongs to the event loop that it is first used in."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_concurrency)  # serves its waiters in order
        self._breaker = CircuitBreaker(
            settings.breaker_threshold, settings.breaker_cooldown, settings.max_backoff, settings.call_timeout
        )
        self._openai = AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key.get_secret_value(),
            timeout=settings.attempt_timeout,
            max_retries=0,
            http_client=DefaultAioHttpClient(timeout=settings.attempt_timeout),
        )

    async def complete(self, request: ChatRequest, tally: Tally) -> str:
        """The text of the model's reply.

        Raises:
            OperatorEndpointError: it could not be had within the retries and the call's deadline.
        """
        settings, spent, retries = self._settings, 0.0, 0
        while True:
            async with self._slots:
                started = _now()
                try:
                    async with self._breaker.permit(settings.call_timeout - spent):
                        return await self._attempt(request, tally, settings.call_timeout - spent - (_now() - started))
                except OperatorEndpointError as error:
                    fault = error
                spent += _now() - started
            pause = self._pause(retries, fault.retry_after)
            if not fault.retryable or retries >= settings.max_retries or spent + pause >= settings.call_timeout:
                logger.debug("gave up after %d retries: %s", retries, fault)
                raise fault
            logger.debug("retry in %.2f s: %s", pause, fault)
            await asyncio.sleep(pause)
            spent += pause
            retries += 1
            tally.retries += 1

    async def _attempt(self, request: ChatRequest, tally: Tally, seconds_left: float) -> str:
        tally.requests += 1
        try:
            with anyio.fail_after(min(self._settings.attempt_timeout, seconds_left)):
                response = await self._openai.chat.completions.with_raw_response.create(**request.body())
            completion = _Completion.model_validate_json(response.content)
        except ValidationError:
            fault = endpoint_error(MalformedReplyError(), self._settings)
        except Exception as error:  # the transport lets some of aiohttp's own exceptions through
            fault = endpoint_error(error, self._settings)
        else:
            if completion.usage is not None:
                tally.prompt_tokens += completion.usage.prompt_tokens
                tally.completion_tokens += completion.usage.completion_tokens
            return completion.choices[0].message.content or ""
        # Raised outside the handler: the original exception holds the request and with it the key.
        raise fault

    def _pause(self, retries: int, retry_after: float | None) -> float:
        """Exponential backoff with jitter, so that calls that failed together do not return together."""
        # 2**retries overflows a float after a thousand retries.
        pause = min(self._settings.backoff * 2 ** min(retries, 30), self._settings.max_backoff)
        return random.uniform(0.5, 1.0) * pause if retry_after is None else retry_after + random.uniform(0, 0.5) * pause

    async def served_models(self) -> list[str]:
        """The models that the endpoint lists, or none where it does not list them."""
        try:
            with anyio.fail_after(self._settings.attempt_timeout):
                response = await self._openai.models.with_raw_response.list()
            return [model.id for model in _Models.model_validate_json(response.content).data]
        except Exception:  # only ever asked to explain a failure: it must not hide it
            return []

    async def aclose(self) -> None:
        await self._openai.close()


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    """The part of a chat completion that is read."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def _now() -> float:
    return asyncio.get_running_loop().time()
