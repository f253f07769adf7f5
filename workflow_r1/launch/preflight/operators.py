"""The operators: the `workflow_r1` section fits, and the endpoint serves its model."""

import asyncio
import os

from omegaconf import DictConfig

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.launch.recipe import LaunchError
from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool


def check_operators(config: DictConfig) -> WorkflowConfig:
    """The `workflow_r1` section fits, and the operator endpoint serves its model."""
    try:
        section = WorkflowConfig.parse(config)
        asyncio.run(_reach(section.operator_pool(os.environ)))
    except (ConfigError, OperatorConfigError, OperatorEndpointError) as error:
        raise LaunchError(str(error)) from None
    return section


async def _reach(pool: OperatorPool) -> None:
    async with pool:
        await pool.check()
