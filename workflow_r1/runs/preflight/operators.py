"""The operators: the `workflow_r1` section fits, and the endpoint serves its model."""

import asyncio
import os

from omegaconf import DictConfig

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool
from workflow_r1.policy.prompt import PromptError
from workflow_r1.runs.recipe import LaunchError


def check_operators(config: DictConfig) -> WorkflowConfig:
    """The `workflow_r1` section fits, its prompt can be rendered, and the operator endpoint serves its model."""
    try:
        section = WorkflowConfig.parse(config)
        section.policy_prompt()
        _check_budget(section)
        asyncio.run(_reach(section.operator_pool(os.environ)))
    except (ConfigError, PromptError, OperatorConfigError, OperatorEndpointError) as error:
        raise LaunchError(str(error)) from None
    return section


def _check_budget(section: WorkflowConfig) -> None:
    """What a budget bounds is counted, or it would never be met."""
    bounds = {name: most for name, most in section.budget if name != "max_failed_fraction" and most is not None}
    if bounds and section.run_dir is None:
        raise ConfigError(
            f"workflow_r1.budget.{next(iter(bounds))} is set, and without a workflow_r1.run_dir nothing adds up what a "
            "run spends: set it to a folder."
        )
    if "max_cost" in bounds:
        services = section.operator_settings(os.environ).services.values()
        if not any(service.prompt_price or service.completion_price or service.request_price for service in services):
            raise ConfigError(
                "workflow_r1.budget.max_cost is set, and every call is free: set workflow_r1.operators.prompt_price "
                "and workflow_r1.operators.completion_price."
            )


async def _reach(pool: OperatorPool) -> None:
    async with pool:
        await pool.check()
