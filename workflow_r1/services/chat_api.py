"""Chat completions of one OpenAI-compatible address: what comes back is a completion, or a fault in one sentence."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from workflow_r1.services.complaint import read_complaint
from workflow_r1.services.completion import Completion, read_completion, read_models, read_token_ids
from workflow_r1.services.errors import OperatorEndpointError
from workflow_r1.services.faults import Wording, request_fault, status_fault
from workflow_r1.services.http_client import http_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Read = TypeVar("Read")


class ChatApi:
    """Pooled connections to one address.

    Belongs to the event loop that it is first used in.

    Args:
        timeout: seconds that one request may take.
        max_retries: how often the openai client makes a request again.

    Attributes:
        wording: how its faults are put.
    """

    def __init__(
        self, base_url: str, api_key: SecretStr, wording: Wording, *, timeout: float, max_retries: int = 0
    ) -> None:
        self.wording = wording
        self._base_url, self._api_key, self._timeout, self._max_retries = base_url, api_key, timeout, max_retries
        self._opened: AsyncOpenAI | None = None

    def _openai(self) -> "AsyncOpenAI":
        if self._opened is None:
            from openai import AsyncOpenAI  # slow to import

            self._opened = AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key.get_secret_value() or "none",
                max_retries=self._max_retries,
                http_client=http_client(self._base_url, self._timeout),
            )
        return self._opened

    async def complete(self, body: Mapping[str, Any], max_retries: int | None = None) -> Completion:
        """The completion for a request.

        Args:
            max_retries: in place of the client's.

        Raises:
            OperatorEndpointError: there is none.
        """
        return await self._post("/chat/completions", body, read_completion, max_retries)

    async def sample(self, body: Mapping[str, Any]) -> list[int]:
        """The sampled tokens for a request of vLLM's text completions that asks for them.

        Raises:
            OperatorEndpointError: there are none.
        """
        return await self._post("/completions", body, read_token_ids, None)

    async def _post(
        self, path: str, body: Mapping[str, Any], read: Callable[[str], Read], max_retries: int | None
    ) -> Read:
        retries = self._max_retries if max_retries is None else max_retries
        try:
            # `chat.completions.create` would first walk through the body by its type hints.
            return read(await self._openai().post(path, body=dict(body), cast_to=str, options={"max_retries": retries}))
        except Exception as error:  # the transport lets some of aiohttp's own exceptions through
            fault = self._fault(error)
        # Raised outside the handler: the original exception holds the request and with it the key.
        raise fault

    async def models(self) -> dict[str, int | None]:
        """The models that the address lists, and the length of each one's context, where it says so.

        Raises:
            OperatorEndpointError: it lists none.
        """
        try:
            retries = min(1, self._max_retries)
            return read_models(await self._openai().get("/models", cast_to=str, options={"max_retries": retries}))
        except Exception as error:
            fault = self._fault(error)
        raise fault

    def _fault(self, error: Exception) -> OperatorEndpointError:
        from openai import APIStatusError

        if isinstance(error, APIStatusError):
            complaint = read_complaint(error.response.text)
            return status_fault(error.status_code, complaint, error.response.headers, self.wording)
        return request_fault(error, self.wording)

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()


def some_of(models: Mapping[str, Any], most: int = 10) -> str:
    """The names of served models, of which there may be hundreds."""
    names = ", ".join(list(models)[:most])
    return names if len(models) <= most else f"{names} and {len(models) - most} more"
