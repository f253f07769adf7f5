"""Chat completions from an OpenAI-compatible endpoint."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from workflow_r1.http_client import http_client
from workflow_r1.operators.connection_faults import service_at
from workflow_r1.operators.faults import MalformedReplyError, Wording, status_fault
from workflow_r1.operators.limiter import Admission
from workflow_r1.operators.request import ChatRequest, Reply
from workflow_r1.operators.service import EndpointSettings
from workflow_r1.operators.service_client import ServiceClient
from workflow_r1.operators.settings import MAIN, key_variable

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class ChatClient(ServiceClient):
    """One endpoint's pooled connections.

    Args:
        name: the endpoint's name in the settings.
    """

    def __init__(self, endpoint: EndpointSettings, admission: Admission, name: str = MAIN) -> None:
        super().__init__(endpoint, admission, _wording(endpoint, name))
        self._endpoint = endpoint
        self._opened: AsyncOpenAI | None = None

    def _openai(self) -> "AsyncOpenAI":
        if self._opened is None:
            from openai import AsyncOpenAI  # slow to import

            self._opened = AsyncOpenAI(
                base_url=self._endpoint.base_url,
                api_key=self._endpoint.api_key.get_secret_value(),
                timeout=self._endpoint.attempt_timeout,
                max_retries=0,
                http_client=http_client(self._endpoint.base_url, self._endpoint.attempt_timeout),
            )
        return self._opened

    async def _request(self, request: ChatRequest) -> Reply:
        from openai import APIStatusError

        openai = self._openai()
        try:
            # `chat.completions.create` would first walk through the body by its type hints.
            content = await openai.post("/chat/completions", body=request.body(), cast_to=str)
        except APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            fault = status_fault(error.status_code, body, error.response.headers, self._wording)
        else:
            return _read(content)
        # Raised outside the handler: the original exception holds the request and with it the key.
        raise fault

    async def served_models(self) -> list[str]:
        """The models that the endpoint lists, or none where it does not list them."""
        try:
            response = await self._openai().models.with_raw_response.list()
            return [model.id for model in _Models.model_validate_json(response.content).data]
        except Exception:  # only ever asked to explain a failure: it must not hide it
            return []

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()


def _read(content: str) -> Reply:
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError:
        raise MalformedReplyError from None
    usage = completion.usage or _Usage()
    return Reply(completion.choices[0].message.content or "", usage.prompt_tokens, usage.completion_tokens)


def _wording(endpoint: EndpointSettings, name: str) -> Wording:
    url_setting, model_setting = "OPERATOR_BASE_URL", "OPERATOR_MODEL_NAME"
    if name != MAIN:
        url_setting, model_setting = f"endpoints.{name}.base_url", f"endpoints.{name}.model"
    return Wording(
        service=service_at("The operator endpoint", endpoint.base_url),
        url=endpoint.base_url,
        url_setting=url_setting,
        key_setting=key_variable(name),
        secret=endpoint.api_key,
        model=f"does not serve the model {endpoint.model!r}: check {model_setting}, and that {url_setting} ends where "
        "/chat/completions begins",
    )


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
