"""The data: every training and validation file can be read as questions with gold answers."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from workflow_r1.launch.recipe import LaunchError

_PREPARE = "prepare the data with 'python examples/data_preprocess/workflow_r1.py'"
REQUIRED_COLUMNS = ("data_source", "prompt", "reward_model")


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
