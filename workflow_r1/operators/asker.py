"""How an operator's call reaches the model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workflow_r1.operators.spec import Accept
from workflow_r1.services.errors import PromptTooLongError
from workflow_r1.services.request import ChatRequest, Completes, Message, Tally


@dataclass(frozen=True)
class Asker:
    """The `Ask` of one operator call.

    Attributes:
        request: what its requests have in common; with a seed, each sample gets one of its own.
        max_reasks: how often a reply that is not accepted is asked for again.
        tally: where the call's requests and tokens are counted.
    """

    client: Completes
    request: ChatRequest
    max_reasks: int
    tally: Tally

    async def __call__(self, messages: Sequence[Message], *, sample: int, hint: str, accept: Accept) -> str:
        reply = await self._complete(messages, sample)
        for _ in range(self.max_reasks):
            if accept(reply):
                break
            self.tally.reasks += 1
            try:
                reply = await self._complete(_asked_again(messages, reply, hint), sample)
            except PromptTooLongError:  # by the reply that is part of it now
                break
        return reply

    async def _complete(self, messages: Sequence[Message], sample: int) -> str:
        seed = None if self.request.seed is None else self.request.seed + sample
        request = replace(self.request, messages=messages, sample=sample, seed=seed)
        return await self.client.complete(request, self.tally)


def _asked_again(messages: Sequence[Message], reply: str, hint: str) -> list[Message]:
    if reply.strip():
        return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": hint}]
    # Endpoints refuse an empty assistant message.
    *earlier, last = messages
    return [*earlier, {**last, "content": f"{last['content']}\n\n{hint}"}]
