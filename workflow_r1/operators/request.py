"""What is asked of a service, what comes back, and what that took."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workflow_r1.operators.settings import MAIN
from workflow_r1.operators.spec import Message

TEMPLATE_TOKENS = 32  # generous for what a chat template puts around one message


@dataclass(frozen=True)
class ChatRequest:
    """What makes a completion the one it is: two equal requests may share a reply.

    Attributes:
        seed: sent where there is one.
        sample: which of several independent replies to the same prompt; never sent.
        service: the name of the service that is asked.
        trajectory: who asks; see `Admission.acquire`.
    """

    model: str
    messages: Sequence[Message]
    temperature: float
    max_tokens: int
    seed: int | None = None
    sample: int = 0
    service: str = MAIN
    trajectory: str = field(default="", compare=False)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(self.messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return body if self.seed is None else {**body, "seed": self.seed}

    @property
    def most_tokens(self) -> int:
        """A bound on prompt and completion together."""
        return most_prompt_tokens(self.messages) + self.max_tokens


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
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """One reply of a service."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completes(Protocol):
    """Answers requests: the client of one service, or of several."""

    async def complete(self, request: ChatRequest, tally: Tally) -> str: ...
    async def aclose(self) -> None: ...
