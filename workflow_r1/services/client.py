"""Operators' chat completions from an OpenAI-compatible endpoint."""

from workflow_r1.services.chat_api import ChatApi
from workflow_r1.services.completion import Completion
from workflow_r1.services.connection_faults import service_at
from workflow_r1.services.errors import NoTextError, OperatorEndpointError
from workflow_r1.services.faults import Wording
from workflow_r1.services.limiter import Admission
from workflow_r1.services.request import ChatRequest, Reply
from workflow_r1.services.service import EndpointSettings
from workflow_r1.services.service_client import ServiceClient
from workflow_r1.services.settings import MAIN, key_variable
from workflow_r1.services.thoughts import without_thoughts


class ChatClient(ServiceClient):
    """Asks one endpoint.

    Args:
        name: the endpoint's name in the settings.
    """

    def __init__(self, endpoint: EndpointSettings, admission: Admission, name: str = MAIN) -> None:
        wording = _wording(endpoint, name)
        super().__init__(endpoint, admission, wording)
        self._api = ChatApi(endpoint.base_url, endpoint.api_key, wording, timeout=endpoint.attempt_timeout)

    async def _request(self, request: ChatRequest) -> Reply:
        completion = await self._api.complete(request.body())
        text = without_thoughts(completion.text)
        fault = None if text.strip() else self._no_text(completion, request)
        return Reply(text, completion.prompt_tokens, completion.completion_tokens, fault)

    def _no_text(self, completion: Completion, request: ChatRequest) -> OperatorEndpointError | None:
        """Why a reply without text will have none next time either; None where it may."""
        service, setting = self._wording.service, self._wording.request_setting
        if completion.has_tool_calls:
            sentence = f"{service} sent a tool call instead of text: serve the model without a tool-call parser."
        elif completion.is_withheld:
            sentence = f"{service} withheld its reply ({completion.finish_reason})."
        elif completion.is_cut:
            sentence = (
                f"{service} sent no text: it ran out of tokens while it thought. Raise max_tokens "
                f"({request.most_completion_tokens:,} now), or have the model think less, with {setting}."
            )
        elif completion.reasoning or completion.text.strip() or completion.hides_thoughts:
            sentence = f"{service} sent thoughts and no text."
        else:
            return None
        return NoTextError(sentence)

    async def served_models(self) -> dict[str, int | None]:
        """The models that the endpoint lists, or none where it does not list them."""
        try:
            return await self._api.models()
        except OperatorEndpointError:  # only ever asked to explain a failure: it must not hide it
            return {}

    async def aclose(self) -> None:
        await self._api.aclose()


def _wording(endpoint: EndpointSettings, name: str) -> Wording:
    url_setting, model_setting = "OPERATOR_BASE_URL", "OPERATOR_MODEL_NAME"
    request_setting = "OPERATOR_REQUEST or workflow_r1.operators.request"
    if name != MAIN:
        url_setting, model_setting = f"endpoints.{name}.base_url", f"endpoints.{name}.model"
        request_setting = f"workflow_r1.operators.endpoints.{name}.request"
    return Wording(
        service=service_at("The operator endpoint", endpoint.base_url),
        url=endpoint.base_url,
        url_setting=url_setting,
        key_setting=key_variable(name),
        secret=endpoint.api_key,
        model=f"does not serve the model {endpoint.model!r}: check {model_setting}, and that {url_setting} ends where "
        "/chat/completions begins",
        request_setting=request_setting,
    )
