"""The operators' settings: the services they ask, and what holds for all of them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.keys import check_key
from workflow_r1.services.limiter import Limits
from workflow_r1.services.service import EndpointSettings, SearchSettings, ServiceSettings, chat_url
from workflow_r1.system.cache_dir import cache_dir

MAIN, SEARCH = "main", "search"
"""The names of the endpoint that serves whatever names no other, and of the Search operator's back end."""

_ENVIRONMENT = {
    "base_url": "OPERATOR_BASE_URL",
    "api_key": "OPERATOR_API_KEY",
    "model": "OPERATOR_MODEL_NAME",
}
_REQUEST_VARIABLE = "OPERATOR_REQUEST"  # the one that may be unset


def _default_cache_dir() -> Path:
    return cache_dir() / "operators"


class OperatorSettings(EndpointSettings):
    """The main endpoint, further services, and what holds for all of them.

    Attributes:
        endpoints: further endpoints by name. An operator is served by the one that its declaration names, or that
            bears its own name; else by the main one.
        search: the back end of the Search operator.
        run_dir: the folder of a run whose processes keep the limits together (`RunCoordinator`); None keeps them
            in this process alone.
        seed: sent with requests above temperature 0, the sample's index added; None sends none. For evaluations that
            can be repeated; in training every rollout of a question would get the same samples.
        max_reasks: how often a reply without the tag that its operator needs is asked for again.
        cache: whether replies are taken from the disk cache ("read") and put there too ("on").
            A cache does not notice that another model is served under the same URL and name.
        cache_dir: where the cache is; processes of one machine may share it.
        cache_bytes: its size bound.
        cache_sampled: cache requests with a temperature above 0 too.
    """

    endpoints: dict[str, EndpointSettings] = Field(default_factory=dict)
    search: SearchSettings | None = None
    run_dir: Path | None = None
    seed: int | None = None
    max_reasks: int = Field(default=1, ge=0)
    cache: Literal["off", "read", "on"] = "off"
    cache_dir: Path = Field(default_factory=_default_cache_dir)
    cache_bytes: int = Field(default=2**30, gt=0)
    cache_sampled: bool = False

    @field_validator("cache", mode="before")
    @classmethod
    def _as_yaml_reads_it(cls, value: object) -> object:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @property
    def services(self) -> dict[str, ServiceSettings]:
        """Every service by name."""
        search: dict[str, ServiceSettings] = {SEARCH: self.search} if self.search else {}
        return {MAIN: self, **self.endpoints, **search}

    @property
    def limits(self) -> dict[str, Limits]:
        """The limits of every service by name, which hold no key."""
        return {
            name: Limits.model_validate({field: getattr(service, field) for field in Limits.model_fields})
            for name, service in self.services.items()
        }

    def service_of(self, operator: str, endpoint: str | None) -> str:
        """The name of the service for an operator whose declaration names `endpoint`.

        Raises:
            OperatorConfigError: there is none.
        """
        name = endpoint or (operator if operator in self.endpoints else MAIN)
        if name in self.services:
            return name
        if name == SEARCH:
            raise OperatorConfigError(
                f"The operator {operator} has no back end: set SEARCH_URL and SEARCH_API_KEY, or name a folder made "
                "by 'workflow-r1 operators index' as workflow_r1.operators.search.index."
            )
        raise OperatorConfigError(
            f"The operator {operator} asks the endpoint {name!r}: add it under workflow_r1.operators.endpoints."
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "OperatorSettings":
        """The settings of `OPERATOR_BASE_URL`, `OPERATOR_API_KEY` and `OPERATOR_MODEL_NAME`.

        `OPERATOR_REQUEST` may hold the field `request` as JSON.
        Further endpoints take from the main one whatever they do not name themselves. The key of an endpoint STRONG
        is `OPERATOR_API_KEY_STRONG`; the main one's is only ever sent to the main one's URL. Search is
        `SEARCH_URL` and `SEARCH_API_KEY`.

        Args:
            environ: where to look; the process's environment by default.
            overrides: fields that win over the environment; a None is as good as absent.

        Raises:
            OperatorConfigError: a variable is unset, or a value is out of range.
        """
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {field: environ[name] for field, name in _ENVIRONMENT.items() if environ.get(name)}
        if environ.get(_REQUEST_VARIABLE):
            given["request"] = environ[_REQUEST_VARIABLE]
        given |= _given(overrides)
        _check_key(given, MAIN)
        if missing := [name for field, name in _ENVIRONMENT.items() if not given.get(field)]:
            names, verb = ", ".join(missing), "is" if len(missing) == 1 else "are"
            raise OperatorConfigError(
                f"{names} {verb} not set: the operators need the base URL of an OpenAI-compatible endpoint "
                "(such as http://localhost:8000/v1), its key, and the name of a model that it serves."
            )
        given["endpoints"] = {
            name: _endpoint(name, _section(fields, f"endpoints.{name}"), given, environ)
            for name, fields in _section(given.get("endpoints"), "endpoints").items()
        }
        given["search"] = _search(_section(given.get("search"), "search"), environ)
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise OperatorConfigError(
                f"Operator setting workflow_r1.operators.{field} is wrong: {first['msg']}."
            ) from None


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if value is not None}


def _section(fields: object, name: str) -> dict[str, Any]:
    if fields is not None and not isinstance(fields, Mapping):
        raise OperatorConfigError(f"workflow_r1.operators.{name} is {fields!r}, and has to hold settings by name.")
    return _given(fields or {})


def _endpoint(name: str, own: dict[str, Any], main: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    if name in (MAIN, SEARCH) or not name.isidentifier():
        raise OperatorConfigError(f"An endpoint cannot be named {name!r}: take another word of letters and digits.")
    if isinstance(own.get("base_url"), str):
        own["base_url"] = chat_url(own["base_url"], f"workflow_r1.operators.endpoints.{name}.base_url")
    variable = key_variable(name)
    inherited = {field: main[field] for field in EndpointSettings.model_fields if field in main}
    if environ.get(variable):
        inherited["api_key"] = environ[variable]
    elif own.get("base_url", main["base_url"]) != main["base_url"] and "api_key" not in own:
        raise OperatorConfigError(f"{variable} is not set: the endpoint {name!r} at a URL of its own needs its key.")
    merged = inherited | own
    _check_key(merged, name)
    return merged


def _search(own: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any] | None:
    if "index" in own:
        return own
    names = {"url": "SEARCH_URL", "api_key": "SEARCH_API_KEY"}
    search = {field: environ[name] for field, name in names.items() if environ.get(name)} | own
    if "url" not in search:
        return None
    _check_key(search, SEARCH)
    return search


def _check_key(fields: Mapping[str, Any], name: str) -> None:
    if isinstance(key := fields.get("api_key"), str) and key:
        check_key(key, key_variable(name))


def key_variable(name: str) -> str:
    """The environment variable with the key of the service `name`."""
    return {MAIN: "OPERATOR_API_KEY", SEARCH: "SEARCH_API_KEY"}.get(name, f"OPERATOR_API_KEY_{name.upper()}")
