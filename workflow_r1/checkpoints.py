"""The checkpoints that verl's trainer leaves in a run's folder."""

from pathlib import Path

_LATEST = "latest_checkpointed_iteration.txt"  # verl writes the last step's number there, after its checkpoint


def last_step(folder: Path) -> int:
    """The step of the newest complete checkpoint in a run's folder, 0 if there is none."""
    marker = folder / _LATEST
    text = marker.read_text().strip() if marker.is_file() else ""
    return int(text) if text.isdecimal() else 0
