"""What is checked before a run starts, so that it does not fail ten minutes in."""

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.launch.recipe import LaunchError
from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool
from workflow_r1.operators.settings import MAIN, SEARCH, key_variable

# verl is imported first and alone: importing anything of the plug-in would register it.
_PLUGIN_CHECK = """
import sys, verl
if "workflow_r1.verl_plugin" not in sys.modules:
    sys.exit("its entry point was not loaded")
from workflow_r1.verl_plugin.check import missing_registrations
if missing := missing_registrations():
    sys.exit("not registered: " + ", ".join(missing))
"""

_PREPARE = "prepare the data with 'python examples/data_preprocess/workflow_r1.py'"
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
    """verl loads our entry point and finds every registration; verl itself reports a failed plug-in at DEBUG only."""
    check = subprocess.run([sys.executable, "-c", _PLUGIN_CHECK], env=dict(environ), capture_output=True, text=True)
    if check.returncode:
        detail = check.stderr.strip().splitlines()[-1]
        raise LaunchError(
            f"verl did not load the Workflow-R1 plug-in ({detail}): reinstall it with "
            "'pip install --no-deps -e .' and leave VERL_USE_EXTERNAL_PLUGINS unset."
        )


def check_keys(config: DictConfig) -> None:
    """No key stands in the configuration: verl prints it to the log and hands it to every tracker."""
    operators = config.workflow_r1.operators
    holders = {MAIN: operators, **(operators.get("endpoints") or {}), SEARCH: operators.get("search") or {}}
    for name, fields in holders.items():
        if (fields or {}).get("api_key") is not None:
            variable = "SEARCH_API_KEY" if name == SEARCH else key_variable(name)
            raise LaunchError(
                f"The configuration holds a key for {name!r}, and verl prints its configuration: take api_key out "
                f"of workflow_r1.operators and set {variable} in the environment."
            )


def check_loss(config: DictConfig) -> None:
    """The configured policy loss is the one that will run."""
    loss_mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
    if loss_mode == "gsspo" and OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise LaunchError(
            "algorithm.rollout_correction.bypass_mode=True makes verl replace the gsspo loss by its bypass loss: "
            "leave it False."
        )


def check_model(path: str | None) -> None:
    """`path` is a checkpoint folder, or a Hub model whose configuration can be loaded."""
    if path is None:
        raise LaunchError("No model is named: set actor_rollout_ref.model.path to a folder or a Hugging Face model id.")
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
    """Every local training and validation file is a parquet with the columns that a rollout and the reward read."""
    for key in ("train_files", "val_files"):
        files = config.data[key]
        if files is None:
            raise LaunchError(f"data.{key} is not set: {_PREPARE}, or name a parquet file.")
        for file in [files] if isinstance(files, str) else files:
            if "://" not in file:  # verl fetches the others itself
                _check_parquet(Path(file).expanduser(), f"data.{key}")


def _check_parquet(path: Path, setting: str) -> None:
    if not path.is_file():
        raise LaunchError(f"{setting} names {path}, which does not exist: {_PREPARE}, or name another parquet file.")
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid:
        raise LaunchError(f"{setting} names {path}, which is not a parquet file: {_PREPARE}.") from None
    if lacking := [column for column in REQUIRED_COLUMNS if column not in schema.names]:
        found = ", ".join(schema.names)
        raise LaunchError(f"{path} lacks the column(s) {', '.join(lacking)} (it has {found}): {_PREPARE}.")
    try:
        schema.field("reward_model").type.field("ground_truth").type.field("target")
    except (KeyError, TypeError, AttributeError):  # no such field, or no structure where one is expected
        raise LaunchError(
            f"{path} has no reward_model.ground_truth.target, the list of gold answers: {_PREPARE}."
        ) from None


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
