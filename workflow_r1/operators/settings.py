"""Where the operators' model is served and how hard it may be asked."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from workflow_r1.operators.errors import OperatorConfigError

_ENVIRONMENT = {
    "base_url": "OPERATOR_BASE_URL",
    "api_key": "OPERATOR_API_KEY",
    "model": "OPERATOR_MODEL_NAME",
}


def _default_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workflow-r1" / "operators"


class OperatorSettings(BaseModel):
    """An OpenAI-compatible endpoint and the limits kept towards it.

    Attributes:
        base_url: such as `http://localhost:8000/v1`.
        api_key: sent as a bearer token, shown nowhere.
        model: the name that the endpoint serves the model under.
        max_concurrency: requests in flight at once, in this process.
        attempt_timeout: seconds that one request may take.
        call_timeout: seconds that one completion may take with all its retries and pauses, the
            wait for a free slot not counted.
        max_retries: how often a request that failed for a passing reason is made again.
        backoff: seconds before the first retry; doubles with each further one.
        max_backoff: the longest pause between two attempts, in seconds.
        breaker_threshold: requests in a row lost to an outage after which calling pauses.
        breaker_cooldown: seconds of pause before a first probe; doubles up to `max_backoff`.
        max_reasks: how often a reply without the tag that its operator needs is asked for again.
        cache: whether replies are taken from the disk cache ("read") and put there too ("on").
            A cache does not notice that another model is served under the same URL and name.
        cache_dir: where the cache is; processes of one machine may share it.
        cache_bytes: its size bound.
        cache_sampled: cache requests with a temperature above 0 too.
        prompt_price: US dollars per million prompt tokens.
        completion_price: US dollars per million completion tokens.

    Raises:
        OperatorConfigError: `base_url` is not a plain http(s) URL.
    """

    # An input shown in a validation error could be the key.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    api_key: SecretStr
    model: str = Field(min_length=1)
    max_concurrency: int = Field(default=256, ge=1, le=1000)  # the openai client opens 1,000 connections at most
    attempt_timeout: float = Field(default=120.0, gt=0)
    call_timeout: float = Field(default=300.0, gt=0)
    max_retries: int = Field(default=8, ge=0)
    backoff: float = Field(default=0.5, ge=0)
    max_backoff: float = Field(default=20.0, ge=0)
    breaker_threshold: int = Field(default=10, ge=1)
    breaker_cooldown: float = Field(default=1.0, gt=0)
    max_reasks: int = Field(default=1, ge=0)
    cache: Literal["off", "read", "on"] = "off"
    cache_dir: Path = Field(default_factory=_default_cache_dir)
    cache_bytes: int = Field(default=2**30, gt=0)
    cache_sampled: bool = False
    prompt_price: float = Field(default=0.0, ge=0)
    completion_price: float = Field(default=0.0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _plain_http(cls, value: str) -> str:
        wrong = OperatorConfigError(
            "OPERATOR_BASE_URL must be an http:// or https:// URL without credentials or a query, "
            "such as http://localhost:8000/v1."
        )
        try:
            url = urlsplit(value.strip())
            port_ok = url.port is None or url.port > 0
        except ValueError:
            raise wrong from None
        if url.scheme not in ("http", "https") or not url.hostname or not port_ok:
            raise wrong
        if "@" in url.netloc or url.query or url.fragment:
            raise wrong
        return value.strip().rstrip("/")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "OperatorSettings":
        """The settings of `OPERATOR_BASE_URL`, `OPERATOR_API_KEY` and `OPERATOR_MODEL_NAME`.

        Args:
            environ: where to look; the process's environment by default.
            overrides: fields that win over the environment; a None is as good as absent.

        Raises:
            OperatorConfigError: a variable is unset, or a value is out of range.
        """
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {field: environ[name] for field, name in _ENVIRONMENT.items() if environ.get(name)}
        given |= {field: value for field, value in overrides.items() if value is not None}
        if missing := [name for field, name in _ENVIRONMENT.items() if not given.get(field)]:
            names, verb = ", ".join(missing), "is" if len(missing) == 1 else "are"
            raise OperatorConfigError(
                f"{names} {verb} not set: the operators need the base URL of an OpenAI-compatible endpoint "
                "(such as http://localhost:8000/v1), its key, and the name of a model that it serves."
            )
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise OperatorConfigError(f"Operator setting {field!r} is wrong: {first['msg']}.") from None
