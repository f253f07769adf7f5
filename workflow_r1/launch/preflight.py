"""What is checked before a run starts, so that it does not fail ten minutes in."""

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig, OmegaConf

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.launch.recipe import LaunchError
from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool

REQUIRED_COLUMNS = ("data_source", "prompt", "reward_model")


def check_machine(cpu: bool) -> None:
    """Python's version, and on a CPU the compiler that vLLM's sampler needs."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        version = ".".join(map(str, sys.version_info[:3]))
        raise LaunchError(f"This is Python {version}; verl 0.9.1 runs on 3.10 to 3.12: start with another Python.")
    if not cpu:
        return
    if not any(shutil.which(compiler) for compiler in ("g++", "c++", "clang++")):
        raise LaunchError("No C++ compiler found, and vLLM compiles its CPU sampler with one: install g++.")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise LaunchError(
            "Python's headers are missing, and vLLM compiles its CPU sampler against them: install python3-dev."
        )


def check_plugin(environ: Mapping[str, str]) -> None:
    """Every registration of ours is in verl's registries; verl itself reports a failed plug-in at DEBUG only."""
    command = [sys.executable, "-m", "workflow_r1.verl_plugin.check"]
    check = subprocess.run(command, env=dict(environ), capture_output=True, text=True)
    if check.returncode:
        detail = (check.stdout.strip() or check.stderr.strip()).splitlines()[-1:]
        raise LaunchError(
            f"verl did not load the Workflow-R1 plug-in ({' '.join(detail)}): reinstall it with "
            "'pip install --no-deps -e .' and leave VERL_USE_EXTERNAL_PLUGINS unset."
        )


def check_model(path: str) -> None:
    """`path` is a checkpoint folder, or a Hub model whose configuration can be loaded."""
    if (Path(path).expanduser() / "config.json").is_file():
        return
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).exists()
    if looks_local:
        raise LaunchError(
            f"There is no model at {path!r}: set actor_rollout_ref.model.path to a folder with a config.json, "
            "or to a Hugging Face model id."
        )
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LaunchError(f"The model {path!r} could not be loaded from the Hugging Face Hub: {reason}") from None


def check_data(config: DictConfig) -> None:
    """Every training and validation file is a parquet with the columns that a rollout and the reward read."""
    for key in ("train_files", "val_files"):
        for file in _as_list(config.data[key]):
            _check_parquet(Path(file).expanduser(), key)


def _as_list(value: str | ListConfig) -> Iterable[str]:
    return [value] if isinstance(value, str) else list(value)


def _check_parquet(path: Path, key: str) -> None:
    if not path.is_file():
        raise LaunchError(
            f"data.{key} names {path}, which does not exist: prepare the data with "
            f"'python examples/data_preprocess/workflow_r1.py', or set data.{key} to a parquet file."
        )
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid:
        raise LaunchError(f"data.{key} names {path}, which is not a parquet file.") from None
    missing = [column for column in REQUIRED_COLUMNS if column not in schema.names]
    if missing:
        raise LaunchError(
            f"{path} lacks the column(s) {', '.join(missing)} (it has {', '.join(schema.names)}): prepare it with "
            "'python examples/data_preprocess/workflow_r1.py'."
        )
    reward_model = schema.field("reward_model").type
    try:
        reward_model.field("ground_truth").type.field("target")
    except (AttributeError, KeyError):
        raise LaunchError(
            f"{path} has no reward_model.ground_truth.target, the list of gold answers: prepare it with "
            "'python examples/data_preprocess/workflow_r1.py'."
        ) from None


def check_operators(config: DictConfig) -> WorkflowConfig:
    """The `workflow_r1` section fits, and the operator endpoint serves its model."""
    try:
        section = WorkflowConfig.parse(OmegaConf.to_container(config.workflow_r1, resolve=True))
        pool = OperatorPool(section.operator_settings(os.environ), operators=section.operator_names)
        asyncio.run(_reach(pool))
    except (ConfigError, OperatorConfigError, OperatorEndpointError) as error:
        raise LaunchError(str(error)) from None
    return section


async def _reach(pool: OperatorPool) -> None:
    async with pool:
        await pool.check()
