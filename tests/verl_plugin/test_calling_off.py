"""A rollout that is cancelled leaves no generation behind, on Ray and verl's own client."""

import asyncio
from typing import Any

import pytest
import ray
from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

pytestmark = pytest.mark.slow


@ray.remote
class Server:
    """Generates for as long as it is asked to, and takes a while to stop."""

    def __init__(self) -> None:
        self.running = 0
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def generate(self, *, sampling_params: dict[str, Any], **_: Any) -> TokenOutput:
        self.running += 1
        self.asked.set()
        try:
            await asyncio.sleep(sampling_params["seconds"])
        finally:
            await asyncio.sleep(0.2)
            self.running -= 1
        return TokenOutput(token_ids=[1])

    async def require_acquire_fields(self) -> list[str]:
        return []

    async def require_release_fields(self) -> list[str]:
        return []

    async def acquire_server(self, request_id: str) -> tuple[str, Any]:
        return "one", ray.get_runtime_context().current_actor

    async def release_server(self, server_id: str) -> None:
        self.released.set()

    async def until_asked(self) -> None:
        await self.asked.wait()

    async def until_released(self) -> None:
        await self.released.wait()

    async def now_running(self) -> int:
        return self.running


@ray.remote
class Worker:
    async def generate(self, server: Any, seconds: float, call_off: bool) -> tuple[Any, int]:
        """What came back, and what the server still ran when the rollout went on; its slot is given back by and by."""
        config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm"}}})
        client = LLMServerClient(config, server)
        reply = asyncio.create_task(client.generate("id", prompt_ids=[1], sampling_params={"seconds": seconds}))
        if call_off:
            await server.until_asked.remote()
            reply.cancel()
        (output,) = await asyncio.gather(reply, return_exceptions=True)
        running = await server.now_running.remote()
        await server.until_released.remote()
        return getattr(output, "token_ids", type(output)), running


@pytest.fixture(scope="module")
def ray_here():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_verls_server_has_stopped_when_the_rollout_goes_on(ray_here):
    server = Server.remote()
    assert ray.get(Worker.remote().generate.remote(server, 600, True), timeout=150) == (asyncio.CancelledError, 0)


def test_what_is_not_cancelled_is_as_it_was(ray_here):
    server = Server.remote()
    assert ray.get(Worker.remote().generate.remote(server, 0, False), timeout=150) == ([1], 0)
