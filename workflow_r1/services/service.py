"""What operators ask: a chat-completions endpoint or a search back end, and how hard each may be asked."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from workflow_r1.records import total
from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.limiter import Limits

_NEVER_IN_A_URL = re.compile(r"[\s\x00-\x1f\"'`<>\\^{|}…]")


class ServiceSettings(Limits):
    """The limits kept towards one service, and what it costs.

    Attributes:
        attempt_timeout: seconds that one request may take.
        call_timeout: seconds that one completion may take with all its retries and pauses, the
            wait for a free slot not counted.
        max_retries: how often a request that failed for a passing reason is made again.
        backoff: seconds before the first retry; doubles with each further one.
        max_backoff: the longest pause between two attempts, in seconds.
        breaker_threshold: requests in a row lost to an outage after which calling pauses.
        breaker_cooldown: seconds of pause before a first probe; doubles up to `max_backoff`.
        prompt_price: US dollars per million prompt tokens.
        completion_price: US dollars per million completion tokens.
        request_price: US dollars per thousand requests, as search APIs charge.
    """

    # An input shown in a validation error could be the key.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    attempt_timeout: float = Field(default=120.0, gt=0)
    call_timeout: float = Field(default=300.0, gt=0)
    max_retries: int = Field(default=8, ge=0)
    backoff: float = Field(default=0.5, ge=0)
    max_backoff: float = Field(default=20.0, ge=0)
    breaker_threshold: int = Field(default=10, ge=1)
    breaker_cooldown: float = Field(default=1.0, gt=0)
    prompt_price: float = Field(default=0.0, ge=0)
    completion_price: float = Field(default=0.0, ge=0)
    request_price: float = Field(default=0.0, ge=0)

    def cost(self, requests: int, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """US dollars; None where they depend on tokens that were not counted."""
        tokens = token_cost(prompt_tokens, self.prompt_price), token_cost(completion_tokens, self.completion_price)
        return total([*tokens, requests * self.request_price / 1e3])


class EndpointSettings(ServiceSettings):
    """An OpenAI-compatible chat-completions endpoint and a model that it serves.

    Attributes:
        base_url: such as `http://localhost:8000/v1`.
        api_key: sent as a bearer token, shown nowhere.
        model: the name that the endpoint serves the model under.
        request: fields of every request, in place of what operators ask for or beside it, for models that refuse some:
            `{"max_tokens": null, "max_completion_tokens": 4096, "temperature": 1}`. A null leaves the field out.

    Raises:
        OperatorConfigError: `base_url` is not a plain http(s) URL.
    """

    base_url: str
    api_key: SecretStr
    model: str = Field(min_length=1)
    request: dict[str, Any] = Field(default_factory=dict)

    @field_validator("request", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        return request_fields(value, "OPERATOR_REQUEST")

    @field_validator("base_url")
    @classmethod
    def _plain_http(cls, value: str) -> str:
        return chat_url(value, "OPERATOR_BASE_URL")


class SearchSettings(ServiceSettings):
    """Where the Search operator searches: behind an HTTP API, or in a corpus on disk.

    Attributes:
        url: takes and gives JSON in Serper's shape, such as `https://google.serper.dev/search`.
        api_key: sent as `X-API-KEY`, shown nowhere.
        index: a folder that `workflow-r1 operators index` made.
        results: how many results the policy reads.

    Raises:
        OperatorConfigError: `url` is not a plain http(s) URL, or not exactly one of `url` and `index` is given.
    """

    url: str | None = None
    api_key: SecretStr = SecretStr("")
    index: Path | None = None
    results: int = Field(default=3, ge=1)

    @field_validator("url")
    @classmethod
    def _plain_http(cls, value: str | None) -> str | None:
        return None if value is None else plain_http(value, "SEARCH_URL", "https://google.serper.dev/search")

    @model_validator(mode="after")
    def _is_one_back_end(self) -> "SearchSettings":
        if (self.url is None) == (self.index is None):
            raise OperatorConfigError(
                "Search needs one back end: set SEARCH_URL and SEARCH_API_KEY, or name a local index as "
                "workflow_r1.operators.search.index."
            )
        return self


def chat_url(value: str, setting: str) -> str:
    """The base URL of a chat-completions endpoint, as `plain_http` returns it.

    Raises:
        OperatorConfigError: as `plain_http`, or it is the URL of the completions themselves.
    """
    url = plain_http(value, setting, "http://localhost:8000/v1")
    if url.endswith("/completions"):
        raise OperatorConfigError(
            f"{setting} must be the URL that the endpoint's paths begin with, such as http://localhost:8000/v1: leave "
            "out /chat/completions."
        )
    return url


def token_cost(tokens: int | None, price: float) -> float | None:
    """US dollars at `price` for a million; None where there is a price, and tokens that were not counted."""
    if price == 0:
        return 0.0
    return None if tokens is None else tokens * price / 1e6


def request_fields(value: object, setting: str) -> object:
    """`value`, or the JSON object that it is the text of, as in an environment variable.

    Raises:
        OperatorConfigError: it is a text and not such an object, or names what the request is about.
    """
    try:
        fields = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or {"model", "messages", "stream"} & fields.keys():
        raise OperatorConfigError(
            f"{setting} must be a JSON object of fields of a request other than model, messages and stream, such as "
            '{"max_tokens": null, "max_completion_tokens": 4096}.'
        )
    return fields


def plain_http(value: str, setting: str, example: str) -> str:
    """`value` without white space and a last slash.

    Raises:
        OperatorConfigError: it is no http(s) URL, or holds what could be a secret; it is not repeated.
    """
    wrong = OperatorConfigError(
        f"{setting} must be an http:// or https:// URL without credentials or a query, such as {example}."
    )
    try:
        url = urlsplit(value.strip())
        port_ok = url.port is None or url.port > 0
    except ValueError:
        raise wrong from None
    if url.scheme not in ("http", "https") or not url.hostname or not port_ok or _NEVER_IN_A_URL.search(value.strip()):
        raise wrong
    if "@" in url.netloc or url.query or url.fragment:
        raise wrong
    return value.strip().rstrip("/")
