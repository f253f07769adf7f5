"""Numbers and names that verl would compute with, or look up, before it looks at them: what each may be."""

import importlib.util
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.recipe import LaunchError

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

COUNTS = (  # whole numbers of at least 1
    *("trainer.nnodes", "trainer.n_gpus_per_node"),
    *("data.train_batch_size", "data.max_prompt_length", "data.max_response_length"),
    *(f"{_ACTOR}.{name}" for name in ("ppo_mini_batch_size", "ppo_epochs", "ulysses_sequence_parallel_size")),
    *(f"{_ROLLOUT}.{name}" for name in ("n", "tensor_model_parallel_size", "val_kwargs.n", "agent.num_workers")),
    *("reward.num_workers", "algorithm.filter_groups.max_inflight_gen_batches"),
)
COUNTS_OR_NULL = ("data.val_batch_size", "trainer.total_training_steps", f"{_ROLLOUT}.max_model_len")
RANGES = {  # above the first, up to the second
    f"{_ACTOR}.clip_ratio_c": (1, math.inf),
    f"{_ROLLOUT}.top_p": (0, 1),
    f"{_ROLLOUT}.val_kwargs.top_p": (0, 1),
    f"{_ROLLOUT}.gpu_memory_utilization": (0, 1),
}
CANDIDATES = tuple(f"{_ROLLOUT}.{name}" for name in ("top_k", "val_kwargs.top_k"))  # counts; 0 and -1 take all
AT_LEAST_ZERO = tuple(f"{_ACTOR}.{name}" for name in ("clip_ratio", "clip_ratio_low", "clip_ratio_high"))  # or null
CHOICES: dict[str, tuple[Any, ...]] = {
    "algorithm.kl_penalty": ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3"),
    "algorithm.rollout_correction.rollout_is": (None, "token", "turn", "turn_product", "sequence"),
    "reward.reward_manager.source": ("register", "importlib"),
    f"{_ACTOR}.policy_loss.subsequence_weighting": (None, "uniform", "token"),  # null where another loss is configured
}
FILES = (  # of one's own code or settings
    *("reward.custom_reward_function.path", "reward.reward_manager.module.path", "data.custom_cls.path"),
    f"{_ROLLOUT}.agent.agent_loop_config_path",
)


def check_numbers(config: DictConfig) -> None:
    """Every count, range, choice and file is one.

    Raises:
        LaunchError: naming the first that is not, and what it may be.
    """
    for name in (*COUNTS, *COUNTS_OR_NULL):
        value = OmegaConf.select(config, name)
        if not (_is_count(value) or (value is None and name in COUNTS_OR_NULL)):
            raise LaunchError(f"{name}={value} is no whole number of at least 1: set it to one.")
    for name, (low, high) in RANGES.items():
        value = OmegaConf.select(config, name)
        if not (_is_number(value) and low < value <= high):
            bounds = f"above {low}" if high == math.inf else f"above {low} and at most {high}"
            raise LaunchError(f"{name}={value} has to be a number {bounds}: set it to one.")
    for name in AT_LEAST_ZERO:
        value = OmegaConf.select(config, name)
        if value is not None and not (_is_number(value) and value >= 0):
            raise LaunchError(f"{name}={value} has to be a number of at least 0: set it to one.")
    for name in CANDIDATES:
        value = OmegaConf.select(config, name)
        if not (_is_count(value) or (value in (0, -1) and not isinstance(value, bool))):
            raise LaunchError(f"{name}={value} is no number of tokens to choose from: set it to one, or to -1 for all.")
    for name, choices in CHOICES.items():
        if (value := OmegaConf.select(config, name)) not in choices:
            raise LaunchError(f"{name}={value} is not known: take {', '.join(filter(None, choices))}.")
    _check_parallel(config)
    _check_code(config)


def _check_parallel(config: DictConfig) -> None:
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    for name in (f"{_ACTOR}.ulysses_sequence_parallel_size", f"{_ROLLOUT}.tensor_model_parallel_size"):
        if gpus % (size := OmegaConf.select(config, name)):
            raise LaunchError(
                f"{name}={size} does not divide the {gpus} GPU(s) of trainer.nnodes × trainer.n_gpus_per_node: "
                "change one of them."
            )


def _check_code(config: DictConfig) -> None:
    for name in FILES:
        path = OmegaConf.select(config, name)
        if path and "://" not in path and not Path(path).expanduser().is_file():
            raise LaunchError(f"{name}={path} is no file: correct it, or leave it null.")
    library = OmegaConf.select(config, "actor_rollout_ref.model.external_lib")
    for module in [library] if isinstance(library, str) else library or []:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise LaunchError(
                f"actor_rollout_ref.model.external_lib names {module}, which is not installed: install it, or correct "
                "the name."
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
