from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.faulty_endpoint import KEY, Endpoint

from workflow_r1.operators import OperatorPool, OperatorSettings


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


@pytest.fixture
async def make_pool(endpoint: Endpoint) -> AsyncIterator[Callable[..., OperatorPool]]:
    """Pools on the endpoint with short pauses; keyword arguments are settings."""
    pools = []

    def make(operators: list[str] | None = None, modules: tuple[str, ...] = (), **settings: Any) -> OperatorPool:
        defaults = {"base_url": endpoint.url, "api_key": KEY, "model": "small", "backoff": 0.01, "max_backoff": 0.05}
        pools.append(OperatorPool(OperatorSettings(**{**defaults, **settings}), operators, modules))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.aclose()
