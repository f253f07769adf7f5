"""verl's trackers: the metrics file, from which progress and report are read, and a place for what the others write."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from workflow_r1.runs.recipe import LaunchError


@dataclass(frozen=True)
class Tracker:
    """One of the backends of `trainer.logger` (verl 0.9.1, utils/tracking.py).

    Attributes:
        package: what it imports; None if nothing beyond verl.
        places: the environment variables for where it writes, without which that is mostly the working directory, and
            their values in a run, `{}` being the run's folder.
        account: environment variables and files of which one says who the user is, or that it works without a server.
    """

    package: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    account: tuple[str, ...] = ()


_WANDB = Tracker(
    "wandb",
    {"WANDB_DIR": "{}"},
    ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "~/.netrc", "~/_netrc"),
)
TRACKERS = {
    "console": Tracker(),
    "file": Tracker(),
    "tensorboard": Tracker("tensorboard", {"TENSORBOARD_DIR": "{}/tensorboard"}),
    "wandb": _WANDB,
    "tracking": _WANDB,  # verl's former name for it
    # A database has no place for files: MLflow 3 takes that from the variable which its own server sets.
    "mlflow": Tracker(
        "mlflow", {"MLFLOW_TRACKING_URI": "sqlite:///{}/mlflow.db", "_MLFLOW_SERVER_ARTIFACT_ROOT": "{}/mlruns"}
    ),
    "swanlab": Tracker("swanlab", {"SWANLAB_LOG_DIR": "{}/swanlog"}, ("SWANLAB_API_KEY", "SWANLAB_MODE", "~/.swanlab")),
    "trackio": Tracker("trackio", {"TRACKIO_DIR": "{}/trackio"}),
    "clearml": Tracker("clearml"),
    "vemlp_wandb": Tracker("volcengine_ml_platform"),
    "rl_insight": Tracker("rl_insight"),
}


def trackers_of(config: DictConfig) -> list[str]:
    """The trackers that `trainer.logger` names, be it a list, one name or nothing, and the metrics file in any case.

    Raises:
        LaunchError: verl has no such tracker, it is not installed, or it would ask for an account in mid-run.
    """
    logger = config.trainer.logger
    names = dict.fromkeys([*([logger] if isinstance(logger, str) else logger or []), "file"])
    for name in names:
        if name not in TRACKERS:
            raise LaunchError(
                f"trainer.logger names the tracker {name!r}, which verl does not have: take some of "
                f"[{','.join(TRACKERS)}]."
            )
        _check(name, TRACKERS[name])
    return list(names)


def _check(name: str, tracker: Tracker) -> None:
    if tracker.package and importlib.util.find_spec(tracker.package) is None:
        raise LaunchError(
            f"trainer.logger names {name}, and {tracker.package} is not installed: "
            f"pip install {tracker.package}, or take it out."
        )
    if tracker.account and not any(os.environ.get(one) or Path(one).expanduser().exists() for one in tracker.account):
        key, mode, *_ = tracker.account
        raise LaunchError(
            f"trainer.logger names {name}, which would ask who you are: set {key}, "
            f"or {mode}=offline to write files only."
        )


def tracker_places(names: Sequence[str], folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that put what the trackers write into a run's folder, unless `environ` says where."""
    chosen = [TRACKERS[name].places for name in names if not any(map(environ.get, TRACKERS[name].places))]
    return {variable: place.format(folder) for places in chosen for variable, place in places.items()}
