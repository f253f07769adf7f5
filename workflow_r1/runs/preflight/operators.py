"""The operators: the `workflow_r1` section fits, and the endpoint serves its model."""

import asyncio
import os

from omegaconf import DictConfig

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.data.errors import DataError
from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool
from workflow_r1.policy.prompt import PromptError
from workflow_r1.runs.recipe import LaunchError, total_steps

_CALL_TOKENS = (1000, 300)  # of a prompt and its completion: an order of magnitude


def check_operators(config: DictConfig) -> float:
    """The `workflow_r1` section fits, its prompt can be rendered, and the operator endpoint serves its model.

    Returns:
        the round trip of the slowest service that the operators ask, in seconds.
    """
    try:
        section = WorkflowConfig.parse(config)
        section.policy_prompt()
        _check_budget(section)
        seconds = asyncio.run(_reach(section.operator_pool(os.environ)))
    except (ConfigError, PromptError, OperatorConfigError, OperatorEndpointError) as error:
        raise LaunchError(str(error)) from None
    return max(seconds.values(), default=0.0)


def check_operators_rate(config: DictConfig) -> str:
    """The same, and in words what the calls of a step and of the run take at most, at the speed of one short call."""
    seconds = check_operators(config)
    section = WorkflowConfig.parse(config)
    settings = section.operator_settings(os.environ)
    calls = config.data.train_batch_size * config.actor_rollout_ref.rollout.n * section.limits.max_calls
    a_second = settings.max_concurrency / max(seconds, 1e-3)
    if settings.requests_per_minute is not None:
        a_second = min(a_second, settings.requests_per_minute / 60)
    try:
        steps = total_steps(config)
    except DataError:  # about which the check of the data has its own sentence
        steps = None
    minutes = calls / a_second / 60
    step = f"answer within {seconds:.2f} s; a step makes at most {calls:,} calls, {minutes:.1f} min at that speed"
    if steps is None:
        return step
    cost = settings.cost(steps * calls, *(steps * calls * tokens for tokens in _CALL_TOKENS))
    price = f", US$ {cost:,.0f} with {_CALL_TOKENS[0]:,} and {_CALL_TOKENS[1]} tokens a call" if cost else ""
    return f"{step}, the run's {steps} steps {steps * minutes / 60:.1f} h{price}"


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


async def _reach(pool: OperatorPool) -> dict[str, float]:
    async with pool:
        return await pool.check()
