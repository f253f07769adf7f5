"""What is asked of a service, what comes back, and what that took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from workflow_r1.records import total
from workflow_r1.services.errors import OperatorEndpointError
from workflow_r1.services.settings import MAIN

Message = dict[str, str]

TEMPLATE_TOKENS = 32  # generous for what a chat template puts around one message


class Sampling(BaseModel):
    """How a model's reply is sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1)


@dataclass(frozen=True)
class ChatRequest:
    """What makes a completion the one it is: two equal requests may share a reply.

    Attributes:
        seed: sent where there is one.
        sample: which of several independent replies to the same prompt; never sent.
        service: the name of the service that is asked.
        fields: of the body, in place of what stands in it otherwise or beside it; None leaves a field out.
        trajectory: who asks; see `Admission.acquire`.
    """

    model: str
    messages: Sequence[Message]
    temperature: float
    max_tokens: int
    seed: int | None = None
    sample: int = 0
    service: str = MAIN
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    trajectory: str = field(default="", compare=False)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(self.messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return with_fields(body if self.seed is None else {**body, "seed": self.seed}, self.fields)

    @property
    def most_tokens(self) -> int:
        """A bound on prompt and completion together."""
        return most_prompt_tokens(self.messages) + self.most_completion_tokens

    @property
    def most_completion_tokens(self) -> int:
        """A bound on the completion, where the request holds one."""
        bounds = [self.body().get(name) for name in ("max_completion_tokens", "max_tokens")]
        return next((bound for bound in bounds if isinstance(bound, int)), self.max_tokens)


def with_fields(body: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request as an endpoint wants it: each of `fields` in its place, or left out where it is None."""
    return {name: value for name, value in {**body, **fields}.items() if name not in fields or value is not None}


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """A bound on the tokens of a prompt: no tokenizer makes more of them than there are bytes."""
    return sum(len(message["content"].encode()) + TEMPLATE_TOKENS for message in messages)


@dataclass
class Tally:
    """What one operator call took, counted while it runs; see `OperatorResult`."""

    requests: int = 0
    retries: int = 0
    reasks: int = 0
    cache_hits: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0

    def count(self, reply: "Reply") -> None:
        """Add a reply's tokens; one that was not counted makes the sum unknown."""
        self.prompt_tokens = total([self.prompt_tokens, reply.prompt_tokens])
        self.completion_tokens = total([self.completion_tokens, reply.completion_tokens])


@dataclass(frozen=True)
class Reply:
    """One reply of a service.

    Attributes:
        prompt_tokens: None where the service does not say.
        completion_tokens: likewise.
        fault: why it holds no text, though it took its tokens.
    """

    text: str
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    fault: OperatorEndpointError | None = None

    @property
    def tokens(self) -> int | None:
        return total([self.prompt_tokens, self.completion_tokens])


class Completes(Protocol):
    """Answers requests: the client of one service, or of several."""

    async def complete(self, request: ChatRequest, tally: Tally) -> str: ...
    async def aclose(self) -> None: ...
