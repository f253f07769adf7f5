"""The policy behind an OpenAI-compatible endpoint: vLLM's server, another server, a hosted model."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from workflow_r1.evaluation.errors import ContextLengthError, PolicyEndpointError
from workflow_r1.services.chat_api import ChatApi, some_of
from workflow_r1.services.completion import Completion
from workflow_r1.services.connection_faults import service_at
from workflow_r1.services.errors import OperatorEndpointError, PromptTooLongError
from workflow_r1.services.faults import Wording
from workflow_r1.services.keys import check_key
from workflow_r1.services.request import with_fields

Message = dict[str, str]

API_KEY_VARIABLE = "POLICY_API_KEY"
_TIMEOUT = 600.0  # seconds; a long turn of a large model on a busy server takes minutes
_RETRIES = 6
_PAUSES = (1.0, 4.0)  # seconds, after a reply that is none: the openai client makes only refused requests again


class PolicyEndpoint:
    """Chat completions of one model. Belongs to the event loop that it is first used in.

    Args:
        base_url: such as `http://localhost:8000/v1`.
        model: the name that it is served under; None takes the only one that the endpoint lists.
        api_key: sent as a bearer token, shown nowhere; by default `POLICY_API_KEY` of the environment.
        request: fields of every request, in place of ours or beside them; None leaves one out.

    Attributes:
        context_length: tokens that fit into the model's context, where the endpoint says so.
        observation_role: the role in which the model gets to read an observation; see `connect`.
        has_system_role: whether the system prompt can be a message of its own; likewise.
        has_served: whether any turn came back as the model wrote it.

    Raises:
        OperatorConfigError: the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.context_length: int | None = None
        self.observation_role = "tool"
        self.has_system_role = True
        self.has_served = False
        self.fields = request or {}
        self._api_key = SecretStr(api_key or os.environ.get(API_KEY_VARIABLE) or "")
        if key := self._api_key.get_secret_value():
            check_key(key, API_KEY_VARIABLE)
        self._api = ChatApi(self.base_url, self._api_key, self._wording(), timeout=_TIMEOUT, max_retries=_RETRIES)

    async def find_model(self) -> None:
        """Find the model and the length of its context.

        Raises:
            PolicyEndpointError: the endpoint cannot be used; the message says what to do.
        """
        try:
            models = await self._api.models()
        except OperatorEndpointError as error:
            # Not every server lists its models; one that cannot be used at all says here why.
            if self.model is None or error.outage or error.status == 401:
                raise _policy_fault(error) from None
            models = {}
        self.model = self.model or _only_model(models, self.base_url)
        self._api.wording = self._wording()
        self.context_length = models.get(self.model)

    async def connect(self) -> None:
        """Find the model, the length of its context, and the roles in which it reads observations and the prompt.

        Observations are tool messages, as in training, unless the server refuses them outside OpenAI's own function
        calling, or its chat template drops them without a word, which the prompt's token count gives away. The system
        prompt opens the question's message where the chat template has no system role.

        Raises:
            PolicyEndpointError: the endpoint cannot be used; the message says what to do.
        """
        await self.find_model()
        self.observation_role = await self._readable_role()

    async def _readable_role(self) -> str:
        try:
            probe = await self._complete(_probe("tool"), max_retries=1, max_tokens=1)
        except PolicyEndpointError as error:
            if not _may_be_the_template(error):
                raise
            await self._try_user_messages()
            return "user" if (error.status or 0) < 500 else await self._role_after_a_fault()
        return "user" if probe.prompt_tokens is not None and probe.prompt_tokens < _PROBE_WORDS else "tool"

    async def _try_user_messages(self) -> None:
        try:
            await self._complete(_probe("user"), max_retries=1, max_tokens=1)
        except PolicyEndpointError as error:
            if not _may_be_the_template(error):
                raise
            # Refused for another reason, it is refused again, and this time the caller hears why.
            await self._complete(system_into_question(_probe("user")), max_tokens=1)
            self.has_system_role = False

    async def _role_after_a_fault(self) -> str:
        """A template that raises is a 500 with some servers; a fault that passes is not asked for twice."""
        try:
            await self._complete(_probe("tool"), max_retries=0, max_tokens=1)
        except PolicyEndpointError:
            return "user"
        return "tool"

    async def complete(self, messages: Sequence[Message], **sampling: Any) -> Completion:
        """The model's next message.

        Args:
            sampling: what else goes into the request, such as `temperature`, `stop` and `max_tokens`.

        Raises:
            ContextLengthError: the messages, or they and `max_tokens`, do not fit into the context.
            PolicyEndpointError: the endpoint could not serve the request within its retries.
        """
        for pause in _PAUSES:
            try:
                return await self._complete(messages, **sampling)
            except PolicyEndpointError as error:
                if not error.is_bad_reply:
                    raise
            await asyncio.sleep(pause)
        return await self._complete(messages, **sampling)

    async def _complete(
        self, messages: Sequence[Message], max_retries: int | None = None, **sampling: Any
    ) -> Completion:
        assert self.model is not None, "connect first"
        body = with_fields({"model": self.model, "messages": messages, **sampling}, self.fields)
        try:
            return await self._api.complete(body, max_retries)
        except OperatorEndpointError as error:
            raise _policy_fault(error) from None

    async def sample(self, prompt_ids: Sequence[int], **sampling: Any) -> list[int]:
        """The tokens that a vLLM of this machine samples after `prompt_ids`.

        Raises:
            PolicyEndpointError: it could not serve the request within its retries.
        """
        body = {"model": self.model, "prompt": list(prompt_ids), "return_token_ids": True, **sampling}
        try:
            return await self._api.sample(body)
        except OperatorEndpointError as error:
            raise _policy_fault(error) from None

    def _wording(self) -> Wording:
        return Wording(
            service=service_at("The policy endpoint", self.base_url),
            url=self.base_url,
            url_setting="--policy",
            key_setting=API_KEY_VARIABLE,
            secret=self._api_key,
            model=f"does not serve the model {self.model!r}: check the address and the model's name",
            request_setting="--request",
        )

    async def aclose(self) -> None:
        await self._api.aclose()


def _policy_fault(fault: OperatorEndpointError) -> PolicyEndpointError:
    kind = ContextLengthError if isinstance(fault, PromptTooLongError) else PolicyEndpointError
    return kind(str(fault), fault.status, is_bad_reply=fault.retryable and fault.in_reply)


def _may_be_the_template(error: PolicyEndpointError) -> bool:
    """Whether a chat template that refuses a role can be the reason; some servers answer 500 then."""
    return error.status is not None and (error.status in (400, 422) or error.status >= 500)


def system_into_question(messages: Sequence[Message]) -> list[Message]:
    """The messages for a chat template without a system role: the question's opens with the system prompt."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, question, *rest = messages
    return [{**question, "content": f"{system['content']}\n\n{question['content']}"}, *rest]


def _only_model(models: Mapping[str, Any], base_url: str) -> str:
    if len(models) == 1:
        return next(iter(models))
    known = f"it serves {some_of(models)}" if models else "it lists none"
    raise PolicyEndpointError(f"Name the model at {base_url} with --model ({known}).")


_PROBE_WORDS = 64


def _probe(role: str) -> list[Message]:
    return [
        {"role": "system", "content": "prompt"},
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "<think>ask</think><tool>AnswerGenerate: question</tool>"},
        {"role": role, "content": "<info>" + "word " * _PROBE_WORDS + "</info>"},
    ]
