"""A policy session on verl's rollout servers: token in, token out."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from omegaconf import OmegaConf

from workflow_r1.errors import UserError
from workflow_r1.policy.chat_format import ChatFormat, read_chat_format
from workflow_r1.policy.token_session import Sample, TokenSession

if TYPE_CHECKING:  # importing verl's module imports our agent loop, and that this one
    from workflow_r1.verl_plugin.upstream import AgentLoopBase


class PromptTooLongError(UserError):
    """A prompt that verl would cut, of data that could not be measured before the run."""


class VerlSession(TokenSession):
    """A trajectory sampled by verl's rollout servers.

    Attributes:
        tokenizer: the policy's.
        extra_fields: what verl's server reports of the weights that generated the tokens.
        num_preempted: requests that vLLM put back for want of memory; -1 where it does not say.
    """

    def __init__(
        self,
        loop: "AgentLoopBase",
        messages: Sequence[Mapping[str, str]],
        sampling_params: dict[str, Any],
        priority: int,
    ):
        arguments = OmegaConf.to_container(OmegaConf.create(loop.apply_chat_template_kwargs))
        chat = _chat_format(loop.tokenizer, json.dumps(arguments, sort_keys=True))
        super().__init__(chat, messages, loop.rollout_config.response_length)
        if len(self.prompt_ids) > (most := loop.rollout_config.prompt_length):  # for which verl's tensors have no room
            raise PromptTooLongError(
                f"A prompt has {len(self.prompt_ids):,} tokens with its system message, more than "
                f"data.max_prompt_length={most:,}: raise it."
            )
        self.tokenizer: Any = loop.tokenizer
        self._loop = loop
        self._sampling_params = sampling_params
        self._priority = priority
        self._request_id = uuid4().hex  # one id a trajectory: verl routes its turns to one server, for the prefix cache
        self.extra_fields: dict[str, Any] = {}
        self.num_preempted = -1

    async def _sample(self, max_tokens: int, stops: Mapping[str, Any]) -> Sample:
        output = await self._loop.server_manager.generate(
            request_id=self._request_id,
            prompt_ids=self.token_ids,
            sampling_params={**self._sampling_params, **stops, "max_tokens": max_tokens},
            priority=self._priority,
        )
        self._note(output)
        return Sample(output.token_ids, output.log_probs)

    def _note(self, output: Any) -> None:
        first = not self.extra_fields
        if first:
            self.extra_fields = dict(output.extra_fields)
            self.num_preempted = -1 if output.num_preempted is None else output.num_preempted
        else:
            self.extra_fields["max_global_steps"] = output.extra_fields.get("max_global_steps")
            self.num_preempted += output.num_preempted or 0


@lru_cache(maxsize=4)
def _chat_format(tokenizer: Any, template_arguments: str) -> ChatFormat:
    """Read once a process: verl builds a session a trajectory."""
    return read_chat_format(tokenizer, json.loads(template_arguments))
