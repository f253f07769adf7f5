"""Why a trainer ended before its last step: it says so in a file of its run's folder, which the launcher reads."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from workflow_r1.records import Text
from workflow_r1.system.files import made_whole

STOP_FILE = "stopped.json"


class Stop(BaseModel):
    """The end of a trainer.

    Attributes:
        reason: one sentence, of a failure the exception's type and message.
        on_purpose: with its checkpoint saved, because it has a reason to; else it failed.
    """

    reason: Text
    on_purpose: bool


def write_stop(folder: Path, stop: Stop) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with made_whole(folder / STOP_FILE) as file:
        file.write_text(stop.model_dump_json(), encoding="utf-8")


def read_stop(folder: Path) -> Stop | None:
    """What the trainer said, or None where it said nothing."""
    try:
        return Stop.model_validate_json((folder / STOP_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def forget_stop(folder: Path) -> None:
    """For a new start in the folder."""
    (folder / STOP_FILE).unlink(missing_ok=True)
