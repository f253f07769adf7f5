"""Our agent loop without verl's workers around it: who samples, and who scores, are fakes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedTokenizerBase
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.workers.rollout.replica import TokenOutput

from workflow_r1.config import WorkflowConfig
from workflow_r1.rollout import RolloutLimits
from workflow_r1.verl_plugin.agent_loop import WorkflowAgentLoop
from workflow_r1.verl_plugin.agent_loop_manager import WorkflowAgentLoopWorker
from workflow_r1.verl_plugin.reward_manager import WorkflowRewardManager


class BareAgentLoop(WorkflowAgentLoop):
    """What a session uses: the tokenizer, the lengths, and `server` to sample."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        server: Any,
        response_length: int,
        limits: RolloutLimits | None = None,
    ):
        self.tokenizer = tokenizer
        self.server_manager = server
        self.rollout_config = SimpleNamespace(prompt_length=1024, response_length=response_length)
        self.apply_chat_template_kwargs: dict[str, Any] = {}
        self.loop = asyncio.get_running_loop()
        self.workflow_config = WorkflowConfig(prompt="none", limits=limits or RolloutLimits())


@dataclass
class FakeServer:
    """Samples what it is given, a text or a list of tokens a request, up to `max_tokens`.

    Each token's log-probability is its own number, so that none can be taken for another.
    """

    tokenizer: PreTrainedTokenizerBase
    samples: Sequence[str | list[int]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    async def generate(
        self, *, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], priority: int
    ) -> TokenOutput:
        sample = self.samples[len(self.requests)]
        self.requests.append({"id": request_id, "prompt_ids": list(prompt_ids), **sampling_params})
        ids = self.tokenizer.encode(sample) if isinstance(sample, str) else list(sample)
        ids = ids[: sampling_params["max_tokens"]]
        logprobs = [-float(len(self.sampled) + offset + 1) for offset in range(len(ids))]
        self.sampled += ids
        self.logprobs += logprobs
        steps = {"min_global_steps": len(self.requests), "max_global_steps": len(self.requests)}
        return TokenOutput(token_ids=ids, log_probs=logprobs, extra_fields=steps)


async def score_as_verl_does(
    output: AgentLoopOutput, manager: WorkflowRewardManager, columns: dict[str, Any]
) -> AgentLoopOutput:
    """`output` with its score, by the agent-loop worker, which packs it for the reward manager as verl does.

    Args:
        columns: of the dataset row.
    """

    async def compute_score(data: DataProto) -> dict[str, Any]:
        return await manager.run_single(data)

    worker: Any = WorkflowAgentLoopWorker.__new__(WorkflowAgentLoopWorker)  # its set-up loads a model's configuration
    worker.processor, worker.mm_processor_kwargs = None, {}
    worker.reward_loop_worker_handles = [SimpleNamespace(compute_score=SimpleNamespace(remote=compute_score))]
    await worker._compute_score([output], kwargs=columns)
    return output
