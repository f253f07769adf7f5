"""verl's agent-loop workers, which bound how many rollouts run at once and say what became of those that raised.

verl logs the exception of a rollout, whatever it came from, and trains on what is left of its group. Here the group's
tag in the transfer queue also counts them by what they raised, for `WorkflowReplayBuffer` to read.

Selected with `actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

import asyncio
from collections import Counter, defaultdict
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import cached_property
from typing import Any

import ray
import transfer_queue as tq
from ray.exceptions import RayError

from workflow_r1.config import WorkflowConfig
from workflow_r1.verl_plugin.reward_manager import BY_TURN, UNSCORED
from workflow_r1.verl_plugin.stops import describe
from workflow_r1.verl_plugin.upstream import AgentLoopManagerTQ, AgentLoopOutput, AgentLoopWorkerTQ

LOST = "lost"
"""The tag of a prompt that counts its lost rollouts: `{why: how many}`."""


class WorkflowAgentLoopWorker(AgentLoopWorkerTQ):
    """One of verl's workers. A prompt's rollouts all run in one worker, so its tag has one writer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._lost: dict[str, Counter[str]] = defaultdict(Counter)
        self._writing = asyncio.Lock()  # the queue reads a tag, adds to it and writes it back

    async def _run_agent_loop(self, sampling_params: dict, trajectory: dict, *, uid: str, **kwargs: Any) -> None:
        try:
            async with self._gate:
                await super()._run_agent_loop(sampling_params, trajectory, uid=uid, **kwargs)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            partition = "val" if trajectory["validate"] else "train"
            async with self._writing:
                self._lost[uid][describe(error)] += 1
                await tq.async_kv_put(key=uid, partition_id=partition, tag={LOST: dict(self._lost[uid])})
            if isinstance(error, SystemExit):  # of a user's code; it would end the worker, and all that runs there
                raise RuntimeError(describe(error)) from error
            raise

    @cached_property
    def _gate(self) -> AbstractAsyncContextManager[Any]:
        """Lets this worker's share of `workflow_r1.max_trajectories` in at once."""
        most = WorkflowConfig.parse(self.config).max_trajectories
        if most is None:
            return nullcontext()
        return asyncio.Semaphore(max(1, most // self.config.actor_rollout_ref.rollout.agent.num_workers))

    async def _run_prompt(self, prompt: dict, *args: Any, **kwargs: Any) -> None:
        uid = prompt["uid"]
        await super()._run_prompt(prompt, *args, **kwargs)
        self._lost.pop(uid, None)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        if not output:  # verl lets such a rollout go with a warning in the log
            raise ValueError("The agent loop returned no output.")
        await super()._agent_loop_postprocess(output, validate, **kwargs)

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        """As verl's; what could not be scored gets an empty mask: no part in the loss or in its group's statistics."""
        await super()._compute_score(outputs, kwargs)
        fields = outputs[-1].extra_fields
        parts, record = fields.get("reward_extra_info", {}), fields.get("trajectory", {})
        for turn, earned in zip(record.get("turns", ()), parts.pop(BY_TURN, ()), strict=False):
            turn["reward"] = earned
        if (reason := parts.pop(UNSCORED, None)) is not None:
            record[UNSCORED] = reason
            for output in outputs:
                output.response_mask = [0] * len(output.response_mask)

    async def live(self) -> None:
        """Never returns: whoever waits for it learns of this process's end."""
        await asyncio.Event().wait()


class WorkflowAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, of such workers."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(WorkflowAgentLoopWorker)
        self._lives: list[ray.ObjectRef] = []

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        workers: list[Any] = self.agent_loop_workers
        self._lives = [worker.live.remote() for worker in workers]

    def dead_worker(self) -> str | None:
        """Why a worker's process ended, or None: what ran in it would be waited for without end."""
        ended, _ = ray.wait(self._lives, timeout=0)
        try:
            ray.get(ended)
        except RayError as error:
            return describe(error)
        return None
