"""A policy session on verl's rollout servers: token in, token out, nothing re-tokenised."""

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.rollout import GeneratedTurn

if TYPE_CHECKING:  # importing verl's module imports our agent loop, and that this one
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase


class VerlSession:
    """The growing token sequence of one trajectory.

    Attributes:
        tokenizer: the policy's.
        prompt_ids: the prompt's tokens.
        token_ids: prompt and response; what the policy sampled stands in it as it was sampled.
        response_mask: 1 on sampled tokens, 0 on everything that joins and answers them.
        response_logprobs: the sampler's log-probabilities, 0.0 where the mask is 0; None if it gives none.
        extra_fields: what verl's server reports of the weights that generated the tokens.
    """

    def __init__(self, loop: "AgentLoopBase", messages: list[dict], sampling_params: dict[str, Any], priority: int):
        self._loop = loop
        self.tokenizer: Any = loop.tokenizer
        self._messages = messages
        self._sampling_params = {**sampling_params, "stop": list(STOP_STRINGS), "include_stop_str_in_output": True}
        self._priority = priority
        self._request_id = uuid4().hex  # one id a trajectory: verl routes its turns to one server, for the prefix cache
        self.prompt_ids: list[int] = []
        self.token_ids: list[int] = []
        self.response_mask: list[int] = []
        self.response_logprobs: list[float] | None = None
        self.extra_fields: dict[str, Any] = {}
        self.num_preempted = -1

    async def start(self) -> None:
        self.prompt_ids = await self._loop.ct_build_initial_tokens(self._messages)
        self.token_ids = list(self.prompt_ids)

    @property
    def tokens_left(self) -> int:
        return self._loop.rollout_config.response_length - len(self.response_mask)

    async def take_turn(self, max_calls: int) -> GeneratedTurn:
        started, start = time.perf_counter(), len(self.response_mask)
        stop = None
        # Generation stops at every </tool>; where parallel calls are on, the policy then goes on in the same turn
        # until it ends the turn itself.
        for _ in range(max_calls):
            generated = await self._generate()
            stop = self._stop_string(start)
            if stop != "</tool>" or not generated:
                break
        text = self._text(start)
        return GeneratedTurn(
            text=text if stop is None else text[: text.rindex(stop) + len(stop)],
            tokens=(start, len(self.response_mask)),
            complete=stop is not None or self._ended_by_policy() or self.tokens_left > 0,
            seconds=time.perf_counter() - started,
        )

    def _stop_string(self, start: int) -> str | None:
        """The stop string that the last sampled token completed; that token may carry a few characters more."""
        text, before = self._text(start), self._text(start, len(self.response_mask) - 1)
        return next((stop for stop in STOP_STRINGS if text.count(stop) > before.count(stop)), None)

    def _ended_by_policy(self) -> bool:
        return bool(self.response_mask) and self.token_ids[-1] == self.tokenizer.eos_token_id

    def _text(self, start: int, end: int | None = None) -> str:
        response_ids = self.token_ids[len(self.prompt_ids) :]
        return self.tokenizer.decode(response_ids[start:end], skip_special_tokens=True)

    async def _generate(self) -> bool:
        """Sample up to the next stop; False if there was no room to."""
        if self.tokens_left <= 0:
            return False
        output = await self._loop.server_manager.generate(
            request_id=self._request_id,
            prompt_ids=self.token_ids,
            sampling_params={**self._sampling_params, "max_tokens": self.tokens_left},
            priority=self._priority,
        )
        has_logprobs = bool(output.log_probs)
        merged, self.response_mask, logprobs = await self._loop.ct_merge_assistant_token(
            self.token_ids,
            output.token_ids,
            self.response_mask,
            (self.response_logprobs or []) if has_logprobs else None,
            assistant_logprobs=output.log_probs if has_logprobs else None,
        )
        self.token_ids = merged.token_ids
        if has_logprobs:
            self.response_logprobs = logprobs
        self._note(output)
        return bool(output.token_ids)

    def _note(self, output: Any) -> None:
        first = not self.extra_fields
        if first:
            self.extra_fields = dict(output.extra_fields)
            self.num_preempted = -1 if output.num_preempted is None else output.num_preempted
        else:
            self.extra_fields["max_global_steps"] = output.extra_fields.get("max_global_steps")
            self.num_preempted += output.num_preempted or 0

    async def observe(self, observation: str) -> bool:
        # Continuous tokens render the new message alone, so what stands for the turn before it never matters.
        previous = [*self._messages, {"role": "assistant", "content": ""}]
        updated = [*previous, {"role": observation_role(self.tokenizer), "content": observation}]
        merged, mask, logprobs = await self._loop.ct_merge_context_msg(previous, updated, *self._closed_turn())
        if len(mask) >= self._loop.rollout_config.response_length:
            return False
        self._messages = updated
        self.token_ids, self.response_mask, self.response_logprobs = merged.token_ids, mask, logprobs
        return True

    def _closed_turn(self) -> tuple[list[int], list[int], list[float] | None]:
        """The sequence with the turn closed as the chat template closes it.

        A turn that a stop string ended lacks the template's end-of-turn token. It was not sampled, so it gets
        mask 0, like every other token that the policy did not choose.
        """
        closing = end_of_turn_ids(self.tokenizer)
        if not closing or self.token_ids[-1] == closing[-1]:
            return self.token_ids, self.response_mask, self.response_logprobs
        mask = self.response_mask + [0] * len(closing)
        logprobs = None if self.response_logprobs is None else self.response_logprobs + [0.0] * len(closing)
        return self.token_ids + closing, mask, logprobs


@lru_cache(maxsize=4)
def end_of_turn_ids(tokenizer: Any) -> list[int]:
    """The tokens with which the chat template closes an assistant turn, up to the end-of-sequence token."""
    content = "workflow"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "question"}, {"role": "assistant", "content": content}], tokenize=False
    )
    ids = tokenizer.encode(rendered[rendered.rindex(content) + len(content) :], add_special_tokens=False)
    if tokenizer.eos_token_id not in ids:
        return []
    return ids[: ids.index(tokenizer.eos_token_id) + 1]


@lru_cache(maxsize=4)
def observation_role(tokenizer: Any) -> str:
    """`tool`, or `user` where the chat template has no tool role."""
    call = {"id": "call00000", "type": "function", "function": {"name": "operator", "arguments": {}}}
    messages = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "observation", "tool_call_id": "call00000"},
    ]
    try:
        return "tool" if "observation" in tokenizer.apply_chat_template(messages, tokenize=False) else "user"
    except Exception:  # a template raises whatever it likes on a role that it does not know
        return "user"
