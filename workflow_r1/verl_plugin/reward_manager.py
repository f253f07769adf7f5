"""verl's reward manager for Workflow-R1: scores the structured turns that the agent loop recorded."""

from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.experimental.reward_loop.reward_manager.registry import register

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.verl_rows import row_golds
from workflow_r1.reward import score_trajectory
from workflow_r1.trajectory import Trajectory


@register("workflow_r1")
class WorkflowRewardManager(RewardManagerBase):
    """The reward of `workflow_r1.reward`; its parts reach verl's validation metrics per data source."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **kwargs: Any):
        super().__init__(config, tokenizer, compute_score)
        self.weights = WorkflowConfig.parse(config).reward

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score the last output of one trajectory.

        Raises:
            ValueError: the row was not rolled out by `workflow_r1_agent_loop`, or its gold answers cannot be used.
        """
        fields = data[-1:][0].non_tensor_batch
        record = (fields.get("tool_extra_fields") or {}).get("trajectory")
        if record is None:
            raise ValueError(
                "The reward manager workflow_r1 scores what workflow_r1_agent_loop recorded: set agent_name in the "
                "data, or actor_rollout_ref.rollout.agent.default_agent_loop, to workflow_r1_agent_loop."
            )
        parts = score_trajectory(Trajectory.model_validate(record), row_golds(fields["reward_model"]), self.weights)
        return {"reward_score": parts.pop("reward"), "reward_extra_info": parts}
