"""Where a run starts: anew, or at a checkpoint of its own folder or of another."""

import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from workflow_r1.runs.checkpoints import BEST, LATEST_FILE, last_checkpoint, last_step, run_folder
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.runs.run_watch import WATCH_FILE

_LEFT_BY_A_RUN = (
    *(LATEST_FILE, BEST, "global_step_*", "metrics-*.jsonl", WATCH_FILE, "train.log", "trajectories", "operators"),
    "*.png",
)


@dataclass(frozen=True)
class Start:
    """The steps that are done when a run starts, and the `global_step_N` that holds them; None at step 0."""

    step: int = 0
    checkpoint: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of the run that the checkpoint is of."""
        return self.checkpoint and run_folder(self.checkpoint)


def find_start(config: DictConfig, folder: Path) -> Start:
    """Where verl will start, by `trainer.resume_mode` (verl 0.9.1, trainer/ppo/v1/trainer_base.py, `_load_checkpoint`).

    Args:
        config: a composed recipe.
        folder: the run's folder.

    Raises:
        LaunchError: the checkpoint that is asked for is not there, or the settings contradict each other.
    """
    mode, path = config.trainer.resume_mode, config.trainer.resume_from_path
    if mode == "resume_path":
        return _named(path)
    if path is not None:
        raise LaunchError(
            f"trainer.resume_from_path is read with trainer.resume_mode=resume_path only, which is {mode}: set it."
        )
    if mode == "disable":
        return Start()
    if mode != "auto":
        raise LaunchError(f"trainer.resume_mode={mode} is unknown: take auto, disable or resume_path.")
    if not (folder / LATEST_FILE).exists():
        return Start()
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        raise LaunchError(
            f"{folder / LATEST_FILE} names no checkpoint of this folder: write the number of one into it, "
            "or start anew with trainer.resume_mode=disable."
        )
    return Start(last_step(folder), checkpoint)


def _named(path: object) -> Start:
    checkpoint = Path(path).expanduser().resolve() if isinstance(path, str) else Path()
    name = re.fullmatch(r"global_step_(\d+)", checkpoint.name)
    if name is None or not checkpoint.is_dir():
        raise LaunchError(
            f"trainer.resume_from_path={path} is no checkpoint: name the folder global_step_N of a run that is there."
        )
    return Start(int(name[1]), checkpoint)


def starts_anew(config: DictConfig, start: Start, folder: Path) -> bool:
    """Whether the run will train in `folder` from somewhere else than what is there."""
    return config.trainer.resume_mode != "auto" and start.folder != folder and not config.trainer.val_only


def set_aside(folder: Path) -> Path | None:
    """Move what an earlier run left in `folder` into a folder in it, which is returned; None where there is nothing.

    A run that starts anew there would otherwise replace its checkpoints step by step, and be reported with its figures.
    """
    left = sorted(path for pattern in _LEFT_BY_A_RUN for path in folder.glob(pattern))
    if not left:
        return None
    aside = next(path for i in count(1) if not (path := folder / f"earlier-{i:03d}").exists())
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
    return aside
