"""The operators that a policy can call, behind one endpoint."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from workflow_r1.operators.builtin import WARNING_OP
from workflow_r1.operators.cache import CachingClient, ReplyCache
from workflow_r1.operators.client import ChatClient, ChatRequest, Tally
from workflow_r1.operators.errors import OperatorEndpointError, OperatorInputError
from workflow_r1.operators.registry import select_operators
from workflow_r1.operators.result import OperatorResult
from workflow_r1.operators.settings import OperatorSettings
from workflow_r1.operators.spec import Accept, Ask, Message, OperatorSpec
from workflow_r1.operators.usage import UsageMeter


class _Completes(Protocol):
    async def complete(self, request: ChatRequest, tally: Tally) -> str: ...
    async def aclose(self) -> None: ...


class OperatorPool:
    """Operators by name, sharing connections, limits, cache and meter.

    Args:
        settings: the endpoint.
        operators: the names of the operators on offer, in this order; None for all.
        modules: importable modules with `OperatorSpec`s of one's own.

    Attributes:
        usage: what all calls of this pool took; replace it with a fresh one to start anew.

    Raises:
        OperatorConfigError: a name that no operator has, a module that does not import, a cache that does
            not open.
    """

    def __init__(
        self, settings: OperatorSettings, operators: Sequence[str] | None = None, modules: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        self.usage = UsageMeter()
        self._specs = select_operators(operators, modules)
        self._cache = ReplyCache.of(settings)
        self._clients: dict[asyncio.AbstractEventLoop, _Completes] = {}  # a connection belongs to its event loop

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

    @classmethod
    def shared(
        cls, settings: OperatorSettings, operators: Sequence[str] | None = None, modules: Sequence[str] = ()
    ) -> "OperatorPool":
        """The process's one pool for these arguments: what rollout workers use, and never close."""
        return _shared_pool(settings, None if operators is None else tuple(operators), tuple(modules))

    @property
    def specs(self) -> tuple[OperatorSpec, ...]:
        """The declarations on offer, in order: what the policy's prompt lists."""
        return tuple(self._specs.values())

    async def call(self, name: str, text: str) -> OperatorResult:
        """Call an operator with the policy's input text.

        Neither a fault of the endpoint nor a mistake of the policy raises: see `OperatorResult`.
        """
        spec = self._specs.get(name)
        if spec is None:
            return self.warning(text if name == WARNING_OP else f"There is no operator named {name}.")
        try:
            inputs = spec.parse(text)
        except OperatorInputError as error:
            return self._metered(OperatorResult(name, str(error), rejected=True))
        started, tally, failed = _now(), Tally(), False
        try:
            output = await spec.run(inputs, self._ask(spec, tally)) or "(no reply)"
        except OperatorEndpointError as error:
            output, failed = f"{name} could not be served. {error}", True
        cost = (
            tally.prompt_tokens * self.settings.prompt_price + tally.completion_tokens * self.settings.completion_price
        )
        return self._metered(
            OperatorResult(name, output, failed, seconds=_now() - started, cost=cost / 1e6, **vars(tally))
        )

    def warning(self, reason: str) -> OperatorResult:
        """What a malformed turn gets: the reason and the operators there are. Calls no model."""
        text = f"{reason} Available operators: {', '.join(self._specs)}."
        return self._metered(OperatorResult(WARNING_OP, text, rejected=True))

    def _metered(self, result: OperatorResult) -> OperatorResult:
        self.usage.add(result)
        return result

    def _ask(self, spec: OperatorSpec, tally: Tally) -> Ask:
        client = self._client()

        async def complete(messages: Sequence[Message], sample: int) -> str:
            request = ChatRequest(
                model=self.settings.model,
                messages=messages,
                temperature=spec.sampling.temperature,
                max_tokens=spec.sampling.max_tokens,
                seed=sample if spec.samples > 1 else None,
            )
            return await client.complete(request, tally)

        async def ask(messages: Sequence[Message], *, sample: int, hint: str, accept: Accept) -> str:
            reply = await complete(messages, sample)
            for _ in range(self.settings.max_reasks):
                if accept(reply):
                    break
                tally.reasks += 1
                reply = await complete(_asked_again(messages, reply, hint), sample)
            return reply

        return ask

    def _client(self) -> _Completes:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for ended in [other for other in self._clients if other.is_closed()]:
                del self._clients[ended]
            client = ChatClient(self.settings)
            self._clients[loop] = CachingClient(client, self._cache, self.settings) if self._cache else client
        return self._clients[loop]

    async def check(self) -> float:
        """Reach the endpoint with one small completion and return its round trip in seconds.

        Raises:
            OperatorEndpointError: one sentence that says what to do.
        """
        patient = min(30.0, self.settings.call_timeout)
        client = ChatClient(self.settings.model_copy(update={"max_retries": 2, "call_timeout": patient}))
        messages = [{"role": "user", "content": "Reply with the one word: ready"}]
        started = _now()
        try:
            await client.complete(ChatRequest(self.settings.model, messages, temperature=0.0, max_tokens=16), Tally())
            return _now() - started
        except OperatorEndpointError as error:
            if error.status in (400, 404) and (models := await client.served_models()):
                raise OperatorEndpointError(f"{error} It serves: {', '.join(models)}.", status=error.status) from None
            raise
        finally:
            await client.aclose()

    async def aclose(self) -> None:
        """Close the running event loop's connections; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> "OperatorPool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@cache
def _shared_pool(
    settings: OperatorSettings, operators: tuple[str, ...] | None, modules: tuple[str, ...]
) -> OperatorPool:
    return OperatorPool(settings, operators, modules)


def _asked_again(messages: Sequence[Message], reply: str, hint: str) -> list[Message]:
    if reply.strip():
        return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": hint}]
    # Endpoints refuse an empty assistant message.
    *earlier, last = messages
    return [*earlier, {**last, "content": f"{last['content']}\n\n{hint}"}]


def _now() -> float:
    return asyncio.get_running_loop().time()
