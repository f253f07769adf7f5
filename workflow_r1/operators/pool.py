"""The operators that a policy can call."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from workflow_r1.operators.asker import Asker
from workflow_r1.operators.builtin import WARNING_OP
from workflow_r1.operators.registry import select_operators
from workflow_r1.operators.spec import Inputs, OperatorInputError, OperatorSpec
from workflow_r1.services.cache import ReplyCache
from workflow_r1.services.corpus import open_corpus
from workflow_r1.services.errors import OperatorConfigError, OperatorEndpointError, PromptTooLongError
from workflow_r1.services.health import check_service
from workflow_r1.services.request import ChatRequest, Completes, Tally
from workflow_r1.services.result import OperatorResult
from workflow_r1.services.service import EndpointSettings
from workflow_r1.services.services import Services
from workflow_r1.services.settings import SEARCH, OperatorSettings
from workflow_r1.services.usage import UsageMeter

logger = logging.getLogger(__name__)


class OperatorPool:
    """Operators by name, sharing connections, limits, cache and meter.

    Args:
        settings: the services that they ask.
        operators: the names of the operators on offer, in this order; None for all but Search.
        modules: importable modules with `OperatorSpec`s of one's own.
        client: answers every request in place of the services.

    Attributes:
        usage: what all calls of this pool took; replace it with a fresh one to start anew.

    Raises:
        OperatorConfigError: a name that no operator has, a module that does not import, an operator without the
            service that it asks, a cache that does not open.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        operators: Sequence[str] | None = None,
        modules: Sequence[str] = (),
        client: Completes | None = None,
    ) -> None:
        self.settings = settings
        self.usage = UsageMeter()
        self._specs = select_operators(operators, modules)
        self._modules = tuple(modules)
        self._client = client
        self._service_names = {name: self._service_of(spec) for name, spec in self._specs.items()}
        self._cache = ReplyCache.of(settings)
        search = settings.search if SEARCH in self._service_names.values() else None
        if search is not None and search.index is not None:
            open_corpus(search.index)  # if it cannot be, that is known now
        self._clients: dict[asyncio.AbstractEventLoop, Services] = {}  # a connection belongs to its event loop

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        operators: Sequence[str] | None = None,
        modules: Sequence[str] = (),
        **overrides: Any,
    ) -> "OperatorPool":
        """The pool for `OPERATOR_BASE_URL`, `OPERATOR_API_KEY` and `OPERATOR_MODEL_NAME`.

        Takes the arguments of `OperatorSettings.from_env` and raises what that raises.
        """
        return cls(OperatorSettings.from_env(environ, **overrides), operators, modules)

    @property
    def specs(self) -> tuple[OperatorSpec, ...]:
        """The declarations on offer, in order: what the policy's prompt lists."""
        return tuple(self._specs.values())

    @property
    def service_names(self) -> dict[str, str]:
        """The name of the service that each operator asks."""
        return dict(self._service_names)

    async def call(self, name: str, text: str, trajectory: str = "") -> OperatorResult:
        """Call an operator with the policy's input text.

        Args:
            trajectory: an id of the trajectory that calls, unique in the run: where requests wait,
                trajectories take turns. Without it each call counts as a trajectory of its own.

        Neither a fault of a service nor a mistake of the policy raises: see `OperatorResult`.
        """
        return await self._counted(await self._serve(name, text, trajectory or uuid4().hex))

    async def ask(
        self, operator: str | OperatorSpec, inputs: Mapping[str, str | Sequence[str]], caller: str, trajectory: str = ""
    ) -> OperatorResult:
        """Call an operator from code rather than for the policy; it need not be on offer.

        Args:
            inputs: by field, text of any kind.
            caller: who calls; the usage names such a call `<caller>/<operator>`.
            trajectory: as for `call`.

        Raises:
            OperatorConfigError: there is no such operator, or it has other inputs.
        """
        spec = operator if isinstance(operator, OperatorSpec) else self._find(operator)
        try:
            filled = spec.fill(inputs)
        except OperatorInputError as error:
            raise OperatorConfigError(str(error)) from None
        result = await self._run(spec, filled, trajectory or uuid4().hex)
        return await self._counted(replace(result, operator=f"{caller}/{spec.name}"))

    def _find(self, name: str) -> OperatorSpec:
        return self._specs.get(name) or select_operators([name], self._modules)[name]

    async def warn(self, reason: str) -> OperatorResult:
        """What a malformed turn gets: the reason and the operators there are. Calls no model."""
        return await self._counted(self._warning(reason))

    def _warning(self, reason: str) -> OperatorResult:
        text = f"{reason} Available operators: {', '.join(self._specs)}."
        return OperatorResult(WARNING_OP, text, rejected=True)

    async def _counted(self, result: OperatorResult) -> OperatorResult:
        self.usage.add(result)
        if self.settings.run_dir is not None:
            await self._services().record(result)
        return result

    async def _serve(self, name: str, text: str, trajectory: str) -> OperatorResult:
        spec = self._specs.get(name)
        if spec is None:
            return self._warning(f"There is no operator named {name}.")
        try:
            inputs = spec.parse(text)
        except OperatorInputError as error:
            return OperatorResult(name, str(error), rejected=True)
        return await self._run(spec, inputs, trajectory)

    async def _run(self, spec: OperatorSpec, inputs: Inputs, trajectory: str) -> OperatorResult:
        name, started, tally = spec.name, _now(), Tally()
        try:
            result = OperatorResult(name, await spec.run(inputs, self._asker(spec, trajectory, tally)) or "(no reply)")
        except OperatorEndpointError as error:
            # The declaration's part of the prompt is always the same: where that is most of it, the user has to act.
            length = sum(len(value) for values in inputs.values() for value in values)
            if isinstance(error, PromptTooLongError) and length > len(spec.system) + len(spec.prompt):
                result = OperatorResult(name, f"The input is too long for {name}: shorten it.", rejected=True)
            else:
                logger.info("%s could not be served. %s", name, error)
                result = OperatorResult(name, _unavailable(name), failed=True, error=str(error))
        service = self.settings.services[self._service_of(spec)]
        cost = service.cost(tally.requests, tally.prompt_tokens, tally.completion_tokens)
        return replace(result, seconds=_now() - started, cost=cost, **vars(tally))

    def _asker(self, spec: OperatorSpec, trajectory: str, tally: Tally) -> Asker:
        service = self._service_of(spec)
        endpoint, seed = self.settings.services[service], self.settings.seed
        request = ChatRequest(
            model=endpoint.model if isinstance(endpoint, EndpointSettings) else "",
            messages=(),
            temperature=spec.sampling.temperature,
            max_tokens=spec.sampling.max_tokens,
            seed=None if spec.sampling.temperature == 0 else seed,
            service=service,
            fields=endpoint.request if isinstance(endpoint, EndpointSettings) else {},
            trajectory=trajectory,
        )
        return Asker(self._client or self._services(), request, self.settings.max_reasks, tally)

    def _service_of(self, spec: OperatorSpec) -> str:
        return self.settings.service_of(spec.name, spec.endpoint)

    def _services(self) -> Services:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for ended in [other for other in self._clients if other.is_closed()]:
                del self._clients[ended]
            self._clients[loop] = Services(self.settings, self._cache)
        return self._clients[loop]

    async def check(self) -> dict[str, float]:
        """Reach every service that an operator asks, and return the round trip of each in seconds.

        Raises:
            OperatorEndpointError: one sentence that says what to do.
        """
        return {name: await check_service(self.settings, name) for name in dict.fromkeys(self._service_names.values())}

    async def aclose(self) -> None:
        """Close the running event loop's connections; a later call opens new ones."""
        services = self._clients.pop(asyncio.get_running_loop(), None)
        if services is not None:
            await services.aclose()

    async def __aenter__(self) -> "OperatorPool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _unavailable(name: str) -> str:
    """What the policy reads; where the service is and why it failed is none of its business."""
    return f"{name} is not available right now: the call was not served."


def _now() -> float:
    return asyncio.get_running_loop().time()
