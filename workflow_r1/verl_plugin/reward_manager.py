"""verl's reward manager for Workflow-R1: scores the structured turns that the agent loop recorded."""

import os
from typing import Any

import numpy as np

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.verl_rows import row_golds
from workflow_r1.operators.judge import RewardOperators
from workflow_r1.reward import TURNS, Reward
from workflow_r1.trajectory import Trajectory
from workflow_r1.verl_plugin.upstream import DataProto, RewardManagerBase, register_reward_manager

UNSCORED = "unscored"
"""Among the parts that verl is told: why there is no reward. `WorkflowAgentLoopWorker` takes it out again."""

BY_TURN = "by_turn"
"""Likewise: what each turn earned."""

_PACKED = ("tool_extra_fields", "__num_turns__", "prompt_len", "response_len")  # by verl, beside the row's columns


@register_reward_manager("workflow_r1")
class WorkflowRewardManager(RewardManagerBase):
    """The reward function of `workflow_r1.reward`; its parts reach verl's validation metrics per data source."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **kwargs: Any):
        super().__init__(config, tokenizer, compute_score)
        section = WorkflowConfig.parse(config)
        self.reward, self.endings = Reward(section.reward), section.endings
        self.operators = section.operator_pool(os.environ, coordinated=True) if self.reward.asks_operators else None

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score the last output of one trajectory.

        Raises:
            ValueError: the row was not rolled out by `workflow_r1_agent_loop`, or its gold answers cannot be used.
            RewardError: the reward function failed.
        """
        fields = data[-1:][0].non_tensor_batch
        record = (fields.get("tool_extra_fields") or {}).get("trajectory")
        if record is None:
            raise ValueError(
                "The reward manager workflow_r1 scores what workflow_r1_agent_loop recorded: set agent_name in the "
                "data, or actor_rollout_ref.rollout.agent.default_agent_loop, to workflow_r1_agent_loop."
            )
        trajectory = Trajectory.model_validate(record)
        row = {name: _plain(value) for name, value in fields.items() if name not in _PACKED}
        operators = RewardOperators(self.operators) if self.operators else None
        await self.reward.score(trajectory, row_golds(fields["reward_model"]), row, operators)
        if trajectory.unscored is not None:
            return {"reward_score": 0.0, "reward_extra_info": {UNSCORED: trajectory.unscored}}
        if self.endings.cache_length is not None:
            self.endings.shape(trajectory, self.config.actor_rollout_ref.rollout.response_length)
        parts: dict[str, Any] = dict(trajectory.reward)
        if TURNS in parts:
            parts[BY_TURN] = [turn.reward for turn in trajectory.turns]
        return {"reward_score": parts.pop("reward"), "reward_extra_info": parts}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
