"""A policy session on a checkpoint that this machine serves: in tokens, laid out as in training."""

import asyncio
from collections.abc import Mapping
from typing import Any

from workflow_r1.evaluation.endpoint import Message, PolicyEndpoint
from workflow_r1.evaluation.errors import PolicyEndpointError
from workflow_r1.evaluation.session import PolicySampling
from workflow_r1.policy.chat_format import ChatFormat
from workflow_r1.policy.token_session import Sample, TokenSession
from workflow_r1.records import total


class CheckpointSession(TokenSession):
    """One conversation with a served checkpoint.

    Attributes:
        prompt_tokens: over all requests, each with the whole conversation before it.
        completion_tokens: likewise; None where a request was called off.

    Raises:
        PolicyEndpointError: the prompt leaves no room in the model's context.
    """

    def __init__(
        self, endpoint: PolicyEndpoint, chat: ChatFormat, messages: list[Message], sampling: PolicySampling
    ) -> None:
        super().__init__(chat, messages, sampling.max_response_tokens)
        if endpoint.context_length is not None:
            self._response_length = min(self._response_length, endpoint.context_length - len(self.prompt_ids))
        if self._response_length < 1:
            raise PolicyEndpointError(
                f"The prompt has {len(self.prompt_ids)} tokens, and the model's context {endpoint.context_length}: "
                "serve the model with a longer one, or shorten --prompt."
            )
        self._endpoint = endpoint
        self._sampling = sampling
        self._requests = 0
        self.prompt_tokens = 0
        self.completion_tokens: int | None = 0

    async def _sample(self, max_tokens: int, stops: Mapping[str, Any]) -> Sample:
        sampling = self._sampling
        request = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": max_tokens, **stops}
        if sampling.temperature > 0:
            request["seed"] = (sampling.seed + self._requests) % 2**31
        self._requests += 1
        self.prompt_tokens += len(self.token_ids)
        try:
            ids = await self._endpoint.sample(self.token_ids, **request)
        except asyncio.CancelledError:
            self.completion_tokens = None
            raise
        self.completion_tokens = total([self.completion_tokens, len(ids)])
        return Sample(ids)
