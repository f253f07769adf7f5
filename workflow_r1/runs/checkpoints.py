"""The checkpoints that verl's trainer leaves in a run's folder."""

import re
from pathlib import Path

LATEST_FILE = "latest_checkpointed_iteration.txt"  # verl writes the last step's number there, after its checkpoint
CONFIG_FILE = "config.yaml"  # in a `global_step_N`: the configuration that made it, written by our trainer
BEST = "best"  # in a run's folder: laid out as one, with the checkpoint of the best validation alone


def last_step(folder: Path) -> int:
    """The step of the newest complete checkpoint in a run's folder, 0 if there is none."""
    marker = folder / LATEST_FILE
    text = marker.read_text(errors="replace").strip() if marker.is_file() else ""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else 0


def last_checkpoint(folder: Path) -> Path | None:
    """The folder of that checkpoint, or None where there is none; whatever else lies beside it is not looked at."""
    step = last_step(folder)
    checkpoint = step_folder(folder, step)
    return checkpoint if step and checkpoint.is_dir() else None


def step_folder(folder: Path, step: int) -> Path:
    """Where a run's checkpoint of a step is."""
    return folder / f"global_step_{step}"


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that a `global_step_N` is of; that of its `best` is of the same run."""
    folder = checkpoint.parent
    return folder.parent if folder.name == BEST else folder
