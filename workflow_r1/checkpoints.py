"""The checkpoints that verl's trainer leaves in a run's folder."""

import re
from pathlib import Path

_LATEST = "latest_checkpointed_iteration.txt"  # verl writes the last step's number there, after its checkpoint


def last_step(folder: Path) -> int:
    """The step of the newest complete checkpoint in a run's folder, 0 if there is none."""
    marker = folder / _LATEST
    text = marker.read_text(errors="replace").strip() if marker.is_file() else ""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else 0


def last_checkpoint(folder: Path) -> Path | None:
    """The folder of that checkpoint, or None where there is none; whatever else lies beside it is not looked at."""
    step = last_step(folder)
    checkpoint = folder / f"global_step_{step}"
    return checkpoint if step and checkpoint.is_dir() else None
