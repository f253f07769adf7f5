"""The reward function: it is there, its settings fit, and it returns a reward for what every run meets."""

import asyncio
import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.training import iterate_rows, load_training_file
from workflow_r1.data.validation import answering, silent
from workflow_r1.data.verl_rows import row_golds, row_question
from workflow_r1.operators.judge import RewardOperators
from workflow_r1.reward import TURNS, Reward, RewardError
from workflow_r1.runs.preflight.rollouts import REWARD_MANAGER
from workflow_r1.runs.recipe import LaunchError

_WRONG = "I do not know."


def check_reward(config: DictConfig) -> None:
    """The reward function scores a right answer, a wrong one and none to the first question. Data has been checked.

    It is called as in the run, so that what it asks of the operators is served too.

    Raises:
        LaunchError: it cannot be used, or fails.
    """
    if config.reward.reward_manager.name != REWARD_MANAGER:
        return
    section = WorkflowConfig.parse(config)
    try:
        reward = Reward(section.reward)
        informed = OmegaConf.select(config, "algorithm.gsspo_information_gain")
        credit = None if informed else OmegaConf.select(config, "algorithm.gsspo_credit")
        if (row := _first_row(config)) is not None:
            parts = asyncio.run(_try(reward, section, row, config.data.get("prompt_key", "prompt"), credit))
            groups = OmegaConf.select(config, "algorithm.filter_groups")
            if groups and groups.enable and groups.metric not in parts:
                raise RewardError(
                    f"algorithm.filter_groups.metric={groups.metric} is no part of what the reward function "
                    f"{section.reward.function} returns: name one of {', '.join(parts)}."
                )
    except RewardError as error:
        raise LaunchError(str(error)) from None


def _first_row(config: DictConfig) -> dict[str, Any] | None:
    """None where verl alone can read the data."""
    files = config.data.train_files
    first = files if isinstance(files, str) else files[0]
    if (config.data.get("custom_cls") or {}).get("path") or first.startswith("hdfs://"):
        return None
    loaded = load_training_file(first)
    return next(iter(iterate_rows(loaded, loaded.column_names)))


async def _try(reward: Reward, section: WorkflowConfig, row: dict[str, Any], prompt_key: str, credit: Any) -> list[str]:
    """The names of the reward's parts."""
    question, golds = row_question(row, prompt_key), row_golds(row["reward_model"])
    pool = section.operator_pool(os.environ) if reward.asks_operators else None
    try:
        for trajectory in (answering(question, golds[0]), answering(question, _WRONG), silent(question)):
            trajectory.data_source = row.get("data_source", "")
            await reward.score(trajectory, golds, row, RewardOperators(pool) if pool else None)
            if trajectory.unscored is not None:
                raise RewardError(f"The reward {section.reward.function} cannot be had: {trajectory.unscored}")
            if credit in ("turn_rewards", "zero_sum") and TURNS not in trajectory.reward:
                raise RewardError(
                    f"The reward function {section.reward.function} returns no {TURNS!r}, without which "
                    f"algorithm.gsspo_credit={credit} is the outcome alone: return what each turn earned "
                    "(docs/reward.md), or take another credit."
                )
        return list(trajectory.reward)
    finally:
        if pool is not None:
            await pool.aclose()
