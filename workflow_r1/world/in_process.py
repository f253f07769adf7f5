"""The operator pool with the simulated LLM in the same process: the replies of the HTTP endpoint, without HTTP."""

from collections.abc import Sequence

from workflow_r1.operators import OperatorPool, OperatorSettings
from workflow_r1.services.request import ChatRequest, Tally
from workflow_r1.world.simulated_llm import MODEL_NAME, CompletionRequest, SimulatedLLM


def in_process_pool(llm: SimulatedLLM, operators: Sequence[str] | None = None) -> OperatorPool:
    """An `OperatorPool` that asks `llm` directly, with seeds: the same calls have the same replies in any order."""
    settings = OperatorSettings.from_env({}, base_url="http://in-process", api_key="none", model=MODEL_NAME, seed=0)
    return OperatorPool(settings, operators, client=_InProcessClient(llm))


class _InProcessClient:
    def __init__(self, llm: SimulatedLLM):
        self._llm = llm

    async def complete(self, request: ChatRequest, tally: Tally) -> str:
        body = request.body()
        tally.requests += 1
        return self._llm.complete(CompletionRequest.model_validate(body), body)[0]

    async def aclose(self) -> None:
        pass
