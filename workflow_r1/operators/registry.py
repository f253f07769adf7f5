"""Operators by name: the built-in ones and a user's own."""

import importlib
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from workflow_r1.operators.builtin import BUILTIN_OPERATORS, WARNING_OP, Search
from workflow_r1.operators.spec import OperatorSpec
from workflow_r1.services.errors import OperatorConfigError


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class PoolSettings(BaseModel):
    """Which operators a policy is offered."""

    model_config = ConfigDict(title="Operators on offer", extra="forbid", frozen=True, use_attribute_docstrings=True)

    names: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = None
    """The operators on offer, such as A,B,C; by default all that there are but the built-in Search."""

    modules: tuple[str, ...] = ()
    """Python modules that declare operators of one's own."""

    search: bool = False
    """Offer the Search operator too."""

    def specs(self) -> dict[str, OperatorSpec]:
        """The declarations, in order; raises what `select_operators` does."""
        return select_operators(self.names, self.modules, self.search)


def select_operators(
    names: Sequence[str] | None, modules: Sequence[str] = (), search: bool = False
) -> dict[str, OperatorSpec]:
    """The declarations of the operators on offer, in order.

    Args:
        names: None for all that there are but the built-in Search, which needs a back end. A module's own operator
            named Search is like any other.
        modules: importable modules; each `OperatorSpec` at their top level is an operator, and
            replaces an earlier one of the same name.
        search: Search too, at the end, where it is not among them.

    Raises:
        OperatorConfigError: a module cannot be imported or declares none; a name is unknown or none is given.
    """
    known = {spec.name: spec for spec in BUILTIN_OPERATORS}
    for module in modules:
        known |= _declared_in(module)
    chosen = list(known if names is None else names)
    if search and Search.name not in chosen:
        chosen.append(Search.name)
    known.setdefault(Search.name, Search)
    if not chosen:
        raise OperatorConfigError(
            f"No operator is on offer: name at least one in workflow_r1.pool.names, of {', '.join(known)}."
        )
    if unknown := [name for name in chosen if name not in known]:
        raise OperatorConfigError(f"There is no operator named {unknown[0]!r}: choose from {', '.join(known)}.")
    return {name: known[name] for name in chosen}


def _declared_in(module: str) -> dict[str, OperatorSpec]:
    try:
        content = vars(importlib.import_module(module))
    except ImportError as error:
        raise OperatorConfigError(f"The operator module {module!r} cannot be imported: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "declaration"
        raise OperatorConfigError(f"An operator in module {module!r} is wrong: {where}: {first['msg']}.") from error
    specs = {spec.name: spec for spec in content.values() if isinstance(spec, OperatorSpec)}
    if not specs:
        raise OperatorConfigError(f"The operator module {module!r} declares no OperatorSpec at its top level.")
    if WARNING_OP in specs:
        raise OperatorConfigError(f"The operator module {module!r} cannot declare {WARNING_OP}: the name is taken.")
    return specs
