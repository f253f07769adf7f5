"""The policy behind an OpenAI-compatible endpoint: vLLM's server, another server, a hosted model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from workflow_r1.evaluation.errors import ContextLengthError, PolicyEndpointError
from workflow_r1.http_client import http_client
from workflow_r1.operators.connection_faults import service_at
from workflow_r1.operators.errors import PromptTooLongError
from workflow_r1.operators.faults import MalformedReplyError, Wording, request_fault, status_fault
from workflow_r1.operators.keys import check_key
from workflow_r1.proxies import ProxyError

Message = dict[str, str]

API_KEY_VARIABLE = "POLICY_API_KEY"
_TIMEOUT = 600.0  # seconds; a long turn of a large model on a busy server takes minutes
_RETRIES = 6
# The openai client validates nothing: what it makes of a web page fails when it is read.
_MALFORMED = (JSONDecodeError, AttributeError, IndexError, TypeError)


@dataclass(frozen=True)
class Completion:
    """One completion of the policy.

    Attributes:
        text: as the server sent it, most often without the stop string that ended it.
        finish_reason: `stop`, `length`, or what else the server says.
        stop_string: the stop string that ended it; "" for the end-of-sequence token; None where the server does not
            tell the two apart.
        prompt_tokens: as the server counts them; 0 where it does not.
        completion_tokens: likewise.
    """

    text: str
    finish_reason: str
    stop_string: str | None
    prompt_tokens: int
    completion_tokens: int


class PolicyEndpoint:
    """Chat completions of one model. Belongs to the event loop that it is first used in.

    Args:
        base_url: such as `http://localhost:8000/v1`.
        model: the name that it is served under; None takes the only one that the endpoint lists.
        api_key: sent as a bearer token, shown nowhere; by default `POLICY_API_KEY` of the environment.

    Attributes:
        context_length: tokens that fit into the model's context, where the endpoint says so.
        observation_role: the role in which the model gets to read an observation; see `connect`.

    Raises:
        OperatorConfigError: the key cannot be one.
        PolicyEndpointError: the proxy on the way cannot be used.
    """

    def __init__(self, base_url: str, model: str | None = None, api_key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.context_length: int | None = None
        self.observation_role = "tool"
        self._api_key = SecretStr(api_key or os.environ.get(API_KEY_VARIABLE) or "")
        if key := self._api_key.get_secret_value():
            check_key(key, API_KEY_VARIABLE)
        self._openai = AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._api_key.get_secret_value() or "none",
            timeout=_TIMEOUT,
            max_retries=_RETRIES,
            http_client=_http_client(self.base_url),
        )

    async def connect(self) -> None:
        """Find the model, the length of its context, and the role in which it reads observations.

        Observations are tool messages, as in training, unless the server refuses them outside OpenAI's own function
        calling, or its chat template drops them without a word, which the prompt's token count gives away.

        Raises:
            PolicyEndpointError: the endpoint cannot be used; the message says what to do.
        """
        models = await self._served_models()
        self.model = self.model or _only_model(models, self.base_url)
        self.context_length = models.get(self.model)
        try:
            probe = await self.complete(_probe("tool"), max_tokens=1)
        except PolicyEndpointError as error:
            if error.status not in (400, 422):
                raise
            # Refused for another reason, it is refused again, and this time the caller hears why.
            await self.complete(_probe("user"), max_tokens=1)
            self.observation_role = "user"
        else:
            if 0 < probe.prompt_tokens < _PROBE_WORDS:
                self.observation_role = "user"

    async def _served_models(self) -> dict[str, int | None]:
        try:
            listed = (await self._openai.with_options(max_retries=1).models.list()).data
            return {model.id: (model.model_extra or {}).get("max_model_len") for model in listed}
        except (openai.NotFoundError, openai.InternalServerError):
            return {}  # not every server lists its models
        except Exception as error:  # the transport lets some of aiohttp's own exceptions through
            fault = self._explained(error)
        # Raised outside the handler: the original exception holds the request and with it the key.
        raise fault

    async def complete(self, messages: Sequence[Message], **sampling: Any) -> Completion:
        """The model's next message.

        Args:
            sampling: what else goes into the request, such as `temperature`, `stop` and `max_tokens`.

        Raises:
            ContextLengthError: the messages, or they and `max_tokens`, do not fit into the context.
            PolicyEndpointError: the endpoint could not serve the request within its retries.
        """
        assert self.model is not None, "connect first"
        body = {"model": self.model, "messages": messages, **sampling}
        try:
            # `chat.completions.create` would first walk through the messages by their type hints.
            return _read(await self._openai.post("/chat/completions", cast_to=ChatCompletion, body=body))
        except Exception as error:
            fault = self._explained(error)
        raise fault

    def _explained(self, error: Exception) -> PolicyEndpointError:
        wording = Wording(
            service=service_at("The policy endpoint", self.base_url),
            url=self.base_url,
            url_setting="--policy",
            key_setting=API_KEY_VARIABLE,
            secret=self._api_key,
            model=f"does not serve the model {self.model!r}: check the address and the model's name",
        )
        if isinstance(error, openai.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            fault = status_fault(error.status_code, body, error.response.headers, wording)
        elif isinstance(error, _MALFORMED):
            fault = request_fault(MalformedReplyError(), wording)
        else:
            fault = request_fault(error, wording)
        kind = ContextLengthError if isinstance(fault, PromptTooLongError) else PolicyEndpointError
        return kind(str(fault), fault.status)

    async def aclose(self) -> None:
        await self._openai.close()


def _http_client(base_url: str) -> Any:
    try:
        return http_client(base_url, _TIMEOUT)
    except ProxyError as error:
        raise PolicyEndpointError(f"The policy endpoint {base_url} cannot be reached: {error}") from None


def _read(completion: ChatCompletion) -> Completion:
    choice, usage = completion.choices[0], completion.usage
    return Completion(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason,
        stop_string=_stop_string(choice.finish_reason, choice.model_extra or {}),
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


def _stop_string(finish_reason: str, extra: Mapping[str, Any]) -> str | None:
    """vLLM's `stop_reason`, or SGLang's `matched_stop`: a string, or a token's id, or null for the model's own end."""
    for field in ("stop_reason", "matched_stop"):
        if field in extra and finish_reason == "stop":
            return extra[field] if isinstance(extra[field], str) else ""
    return None


def _only_model(models: Mapping[str, Any], base_url: str) -> str:
    if len(models) == 1:
        return next(iter(models))
    known = f"it serves {', '.join(models)}" if models else "it lists none"
    raise PolicyEndpointError(f"Name the model at {base_url} with --model ({known}).")


_PROBE_WORDS = 64


def _probe(role: str) -> list[Message]:
    return [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "<think>ask</think><tool>AnswerGenerate: question</tool>"},
        {"role": role, "content": "<info>" + "word " * _PROBE_WORDS + "</info>"},
    ]
