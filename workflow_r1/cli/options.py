"""Flags from the fields of settings, so that none can be missing from a command or mean something else there."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, get_origin

import typer
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

_NAMES = {
    "benchmarks": ("--benchmark", "-b"),
    "names": ("--operators",),
    "modules": ("--operator-module",),
    "operators": ("--operator-settings",),
    "function": ("--reward",),
    "settings": ("--reward-settings",),
}
"""Fields whose flag has another name than they have in a file of settings."""


def takes_settings(model: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command with a flag for every field of `model`, those of models in it included.

    What was given, and nothing else, is its argument `values`, from which the model can be validated.
    """
    flags = list(_flags(model))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(context: typer.Context, **given: Any) -> None:
            values: dict[str, Any] = {}
            for flag in flags:
                value, source = given.pop(flag.parameter.name), context.get_parameter_source(flag.parameter.name)
                if source is not None and source.name != "DEFAULT":
                    flag.put(values, value)
            command(**given, values=values)

        own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != "values"]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        signature = inspect.Signature([context, *own, *(flag.parameter for flag in flags)])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        return run

    return decorate


@dataclass(frozen=True)
class _Flag:
    """A field as a parameter of a command.

    Attributes:
        path: where its value belongs in the settings.
    """

    parameter: inspect.Parameter
    path: tuple[str, ...]

    def put(self, values: dict[str, Any], given: Any) -> None:
        for name in self.path[:-1]:
            values = values.setdefault(name, {})
        values[self.path[-1]] = given


def _flags(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[_Flag]:
    for name, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from _flags(field.annotation, (*path, name))
        else:
            yield _Flag(_parameter(name, field, _panel(model, name)), (*path, name))


def _panel(model: type[BaseModel], name: str) -> str | None:
    """The title of the model that declares the field."""
    declaring = next(base for base in model.__mro__ if name in inspect.get_annotations(base))
    return declaring.model_config.get("title") if issubclass(declaring, BaseModel) else None


def _parameter(name: str, field: FieldInfo, panel: str | None) -> inspect.Parameter:
    kind, default = _kind(field)
    option = typer.Option(
        *_NAMES.get(name, (f"--{name.replace('_', '-')}",)),
        help=field.description,
        rich_help_panel=panel,
        show_default=default not in (None, False),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else default,
        annotation=Annotated[kind, option],
    )


def _kind(field: FieldInfo) -> tuple[Any, Any]:
    """A flag's type and default: it is text where the field reads text by itself, and may be repeated for several."""
    if any(isinstance(reader, BeforeValidator) for reader in field.metadata):
        return str | None, None
    if get_origin(field.annotation) is tuple:
        return list[str] | None, None
    return field.annotation, field.default
