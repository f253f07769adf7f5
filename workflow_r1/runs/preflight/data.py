"""The data: every row of every training and validation file is a question with gold answers."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from workflow_r1.data.errors import DataError, Reason, RowError
from workflow_r1.data.training import check_joinable, iterate_rows, load_training_file
from workflow_r1.data.verl_rows import AGENT_LOOP, check_row, row_golds
from workflow_r1.runs.preflight.rollouts import REWARD_MANAGER
from workflow_r1.runs.recipe import LaunchError

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_SHOWN = 5
_PREPARE = "prepare the data with 'workflow-r1 prepare'"


def check_data(config: DictConfig) -> None:
    """Every row of the files has what a rollout and the reward read, and verl can load the files together.

    Not looked at are files on HDFS, which verl fetches itself, and those that a dataset class of one's own reads.
    """
    data = config.data
    if (data.get("custom_cls") or {}).get("path"):
        return
    for setting in ("train_files", "val_files"):
        files = [data[setting]] if isinstance(data[setting], str) else list(data[setting] or ())
        if not files:
            raise LaunchError(f"data.{setting} is not set: {_PREPARE}, or name a file.")
        here = [file for file in files if not file.startswith("hdfs://")]
        try:
            loaded = [load_training_file(file) for file in here]
            check_joinable(here, loaded)
        except DataError as error:
            raise LaunchError(f"data.{setting}: {error} If it is not what you mean to train on, {_PREPARE}.") from None
        for file, rows in zip(here, loaded, strict=True):
            _check_rows(rows, setting, file, config)
        _check_agent_names(setting, dict(zip(here, loaded, strict=True)), config)


def _check_rows(loaded: "Dataset", setting: str, file: str, config: DictConfig) -> None:
    where, is_json = f"data.{setting}: {file}", file.endswith((".json", ".jsonl"))  # verl goes by the ending
    data, scored_here = config.data, config.reward.reward_manager.name == REWARD_MANAGER
    prompt_key, data_source_key = data.get("prompt_key", "prompt"), data.get("reward_fn_key", "data_source")
    if lacking := [name for name in (data_source_key, prompt_key, "reward_model") if name not in loaded.column_names]:
        found = ", ".join(loaded.column_names)
        raise LaunchError(f"{where} lacks the column(s) {', '.join(lacking)} (it has {found}): {_PREPARE}.")
    faults: list[tuple[int, RowError]] = []
    columns = (data_source_key, prompt_key, "reward_model", "extra_info", "question")
    for number, row in enumerate(iterate_rows(loaded, columns)):
        try:
            check_row(row, prompt_key, data_source_key)
            if scored_here:  # another reward has golds of its own kind
                row_golds(row.get("reward_model"))
        except RowError as fault:
            faults.append((number, fault))
    if faults:
        number, first = faults[0]
        guesses = sum(fault.reason is Reason.DATE for _, fault in faults) if is_json else 0
        is_guess = is_json and first.reason is Reason.DATE
        what = f"a text that verl takes for a date in JSON: {first.value}" if is_guess else first
        numbers = ", ".join(f"{number:,}" for number, _ in faults[:_ROWS_SHOWN]) + ", ..." * (len(faults) > _ROWS_SHOWN)
        raise LaunchError(
            f"{where}, row {number:,} (the first is 0) has {what}; {len(faults):,} of {len(loaded):,} row(s) have "
            f"faults ({numbers}): {_remedy(file, len(loaded), len(faults), guesses)}"
        )
    if not loaded.num_rows:
        raise LaunchError(f"{where} has no rows: {_PREPARE}.")


def _remedy(file: str, num_rows: int, num_faults: int, num_guesses: int) -> str:
    """What to do about the faults of a file: with a command where `prepare` can make files of its other rows.

    Args:
        num_guesses: faults that are of verl's reading alone: `prepare` takes the text as it stands.
    """
    path = Path(file)
    if not path.is_file() or num_rows - num_faults + num_guesses < 2:
        return "mend them."
    folder, kept = path.with_name(f"{path.stem}-prepared"), "as text" if num_guesses == num_faults else "left out"
    options = ["--source", file, "--local-dir", str(folder), "--num-train", str(num_rows)]
    return (
        f"mend them, or train on {folder}/train.parquet and test.parquet, with them {kept}, after: "
        f"{shlex.join(['workflow-r1', 'prepare', *options])}"
    )


def _check_agent_names(setting: str, loaded: "dict[str, Dataset]", config: DictConfig) -> None:
    """Every row is rolled out: verl falls back on the default agent loop only where no row of any file names one."""
    if not any("agent_name" in rows.column_names for rows in loaded.values()):
        return
    for file, rows in loaded.items():
        names = rows["agent_name"] if "agent_name" in rows.column_names else [None] * len(rows)
        if nameless := sum(not name for name in names):
            raise LaunchError(
                f"data.{setting}: {nameless:,} of {len(rows):,} rows of {file} have no agent_name, where others have "
                "one, and verl would roll none of them out: give every row of every file one, or take the column out."
            )
        others = sorted(set(names) - {AGENT_LOOP})
        if others and config.reward.reward_manager.name == REWARD_MANAGER:
            raise LaunchError(
                f"data.{setting}: {file} has the agent_name {', '.join(others)}, whose rollouts the reward manager "
                f"{REWARD_MANAGER} cannot score: make it {AGENT_LOOP}, or take the column out."
            )
