"""verl's agent loop for Workflow-R1: runs the rollout on verl's servers and hands tokens and turns to the trainer."""

import logging
import os
from functools import lru_cache
from typing import Any

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.verl_rows import AGENT_LOOP, row_question
from workflow_r1.errors import UserError
from workflow_r1.operators import OperatorPool
from workflow_r1.policy.prompt import PolicyPrompt
from workflow_r1.rollout import rollout
from workflow_r1.trajectory import Trajectory
from workflow_r1.verl_plugin.session import VerlSession
from workflow_r1.verl_plugin.upstream import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register_agent_loop

# It would warn of the unused builder once a trajectory.
logging.getLogger("verl.utils.tokenizer.continuous_token_wiring").setLevel(logging.ERROR)


class NoTurnError(UserError):
    """Nothing to train on, and verl's tensors have no room for nothing."""


@register_agent_loop(AGENT_LOOP)
class WorkflowAgentLoop(AgentLoopBase):
    """Interleaves the policy's Think-Action turns with operator calls.

    What verl configures, such as lengths, is read from `actor_rollout_ref.rollout`; the prompt, the operators and the
    limits of a trajectory from the top-level `workflow_r1` section (`workflow_r1.config.WorkflowConfig`).
    """

    def __init__(self, *args: Any, hf_model_type: str | None = None, **kwargs: Any):
        # verl picks a continuous-token builder by the model's type, and fails where the chat template is another
        # family's (DeepSeek-R1-Distill-Qwen). Sessions read the template itself, so any builder will do.
        super().__init__(*args, **kwargs)
        self.workflow_config = WorkflowConfig.parse(self.config)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        """Roll out one dataset row; verl passes its columns as keyword arguments.

        Raises:
            NoTurnError: the deadline came before the first turn was over.
        """
        section = self.workflow_config.model_dump_json()
        messages = _policy_prompt(section).messages(kwargs["raw_prompt"])
        session = VerlSession(self, messages, sampling_params, int(priority))
        trajectory = await rollout(
            question=row_question({**kwargs, "prompt": messages}),
            session=session,
            operators=_operator_pool(section),
            limits=self.workflow_config.limits,
            tokenizer=session.tokenizer,
        )
        if not trajectory.turns:
            deadline = f"workflow_r1.limits.max_seconds={self.workflow_config.limits.max_seconds:g}"
            raise NoTurnError(f"The deadline {deadline} came before the first turn was over: raise it.")
        trajectory.data_source = kwargs.get("data_source", "")
        return self._output(session, trajectory)

    def _output(self, session: VerlSession, trajectory: Trajectory) -> AgentLoopOutput:
        response_ids = session.token_ids[len(session.prompt_ids) :]
        response_mask = session.response_mask
        if self.workflow_config.endings.of(trajectory.ended_by) == "masked":
            # No token of it enters the loss, and the gsspo advantage leaves it out of its group's statistics.
            response_mask = [0] * len(response_mask)
        return WorkflowOutput(
            prompt_ids=session.prompt_ids,
            response_ids=response_ids,
            response_mask=response_mask,
            response_logprobs=session.response_logprobs,
            num_turns=2 * len(trajectory.turns),
            metrics=AgentLoopMetrics(
                generate_sequences=sum(turn.generate_seconds for turn in trajectory.turns),
                tool_calls=sum(turn.operator_seconds for turn in trajectory.turns),
                num_preempted=session.num_preempted,
            ),
            extra_fields={
                **session.extra_fields,
                "trajectory": trajectory.model_dump(mode="json"),
                "turn_scores": [],
                "tool_rewards": [],
            },
        )


class WorkflowOutput(AgentLoopOutput):
    """verl puts all that a response earned on its last token; here what a turn earned stands on the turn's."""

    def as_dict(self) -> dict[str, Any]:
        fields = super().as_dict()
        turns = [turn for turn in self.extra_fields["trajectory"]["turns"] if turn["reward"] is not None]
        if turns and self.reward_score is not None:
            fields["rm_scores"][-1] = self.reward_score - sum(turn["reward"] for turn in turns)
            for turn in turns:
                fields["rm_scores"][turn["tokens"][1] - 1] += turn["reward"]
        return fields


@lru_cache(maxsize=1)
def _operator_pool(config: str) -> OperatorPool:
    """The process's one pool: verl builds an agent loop a trajectory, but connections and limits outlive it."""
    return WorkflowConfig.model_validate_json(config).operator_pool(os.environ, coordinated=True)


@lru_cache(maxsize=1)
def _policy_prompt(config: str) -> PolicyPrompt:
    """Rendered once a process."""
    return WorkflowConfig.model_validate_json(config).policy_prompt()
