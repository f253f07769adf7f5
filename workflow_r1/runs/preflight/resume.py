"""A resumed run: its checkpoint fits this machine, and no setting is one that the checkpoint would overrule."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from workflow_r1.runs.checkpoints import CONFIG_FILE
from workflow_r1.runs.recipe import LaunchError

Config = DictConfig | ListConfig

_ACTOR = "actor_rollout_ref.actor"
_LOAD = f"{_ACTOR}.checkpoint.load_contents"
_FSDP_VERSIONS = {"fsdp": 1, "fsdp2": 2}
_FILES = {"model": "model", "optimizer": "optim", "extra": "extra_state"}  # what may be loaded -> its files' beginning

_PATH = "actor_rollout_ref.model.path"
_MODEL = [
    f"actor_rollout_ref.model.{name}" for name in ("lora_rank", "lora_alpha", "target_modules", "exclude_modules")
]
# torch's optimizers and verl's schedule take these back from their saved state.
_OPTIMIZER = [
    f"{_ACTOR}.optim.{name}"
    for name in ("lr", "betas", "weight_decay", "optimizer", "optimizer_impl", "override_optimizer_config")
]
_ORDER = [
    f"data.{name}"
    for name in ("train_files", "train_max_samples", "shuffle", "seed", "max_prompt_length", "filter_overlong_prompts")
]


def check_resume(config: DictConfig, checkpoint: Path | None) -> None:
    """verl can load `checkpoint` here, and every setting of `config` will take effect.

    Args:
        config: a composed recipe.
        checkpoint: the `global_step_N` at which the run starts; None where it starts anew.

    Raises:
        LaunchError: it was saved by another number of GPUs, lacks a file, or holds what a changed setting would change.
    """
    if checkpoint is None:
        return
    loaded = OmegaConf.select(config, _LOAD)
    _check_files(config, checkpoint, loaded)
    made_by = checkpoint / CONFIG_FILE
    if not made_by.is_file():  # of another verl run
        return
    before = _read(made_by)
    if config.actor_rollout_ref.model.path is not None and (changes := _changes([_PATH], before, config)):
        raise LaunchError(
            f"{checkpoint} holds the weights of another model, with which training would go on ({changes}): set it "
            "back, or start another run with another trainer.default_local_dir."
        )
    if changes := _changes(_MODEL, before, config):
        raise LaunchError(
            f"{checkpoint} holds weights of another shape ({changes}): set it back, "
            "or start another run with another trainer.default_local_dir."
        )
    if config.trainer.val_only:
        return
    if {"optimizer", "extra"} & set(loaded) and (changes := _changes(_OPTIMIZER, before, config)):
        raise LaunchError(
            f"Resuming would keep the optimizer of {checkpoint} ({changes}): set it back, or add "
            f"{_LOAD}=[model] for this start, which takes the weights and begins the optimizer and its schedule anew."
        )
    place = checkpoint / "data.pt"
    if place.exists() and (changes := _changes(_ORDER, before, config)):
        raise LaunchError(
            f"Resuming would keep the order of the questions in {checkpoint} ({changes}): set it back, "
            f"or remove {place} to begin the data anew."
        )


def _check_files(config: DictConfig, checkpoint: Path, loaded: list[str]) -> None:
    actor, trainer = checkpoint / "actor", config.trainer
    try:
        saved = json.loads((actor / "fsdp_config.json").read_text())
        saved_ranks, version = int(saved["world_size"]), int(saved["FSDP_version"])
    except (OSError, ValueError, TypeError, KeyError):
        raise LaunchError(
            f"{actor} has no readable fsdp_config.json, so it is no complete checkpoint of verl's FSDP engine: "
            "resume from another with trainer.resume_mode=resume_path and trainer.resume_from_path."
        ) from None
    ranks = trainer.nnodes * trainer.n_gpus_per_node
    if saved_ranks != ranks:
        raise LaunchError(
            f"{checkpoint} was saved by {saved_ranks} GPU(s) and verl resumes on as many, not on {ranks}: "
            "set trainer.n_gpus_per_node and trainer.nnodes back, or start another run (trainer.default_local_dir)."
        )
    strategy = config.actor_rollout_ref.actor.strategy
    if version != _FSDP_VERSIONS[strategy]:
        raise LaunchError(
            f"{checkpoint} was saved with FSDP{version} and {_ACTOR}.strategy is {strategy}: set it back."
        )
    names = [_FILES[content] for content in loaded if content in _FILES]
    files = [f"{name}_world_size_{ranks}_rank_{rank}.pt" for name in names for rank in range(ranks)]
    if lacking := [file for file in files if not (actor / file).is_file()]:
        raise LaunchError(
            f"{actor} lacks {', '.join(lacking)}: resume from another checkpoint (trainer.resume_from_path), "
            f"or leave out of {_LOAD} what was not saved."
        )


def _read(made_by: Path) -> Config:
    try:
        config = OmegaConf.create(made_by.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise LaunchError(
            f"{made_by} cannot be read ({str(error).splitlines()[0]}), so what would change is not known: remove it to "
            "resume all the same."
        ) from None
    return config


def _changes(keys: list[str], before: Config, now: Config) -> str:
    return ", ".join(_changed(keys, before, now))


def _changed(keys: list[str], before: Config, now: Config) -> Iterator[str]:
    for key in keys:
        old, new = _value(key, before), _value(key, now)
        if old != new:
            yield f"{key} is {_short(new)} here and {_short(old)} there"


def _value(key: str, config: Config) -> Any:
    """A setting; files as they are called, not as a glob is told, and from the run's folder: it may be moved."""
    value: Any = OmegaConf.select(config, key)
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if key == _PATH:  # a folder may have been moved
        return value and Path(value).name
    if key != "data.train_files":
        return value
    folder = str(Path(config.trainer.default_local_dir))
    files = [re.sub(r"\[([*?[])\]", r"\1", file) for file in ([value] if isinstance(value, str) else value)]
    return [file.removeprefix(folder) for file in files]


def _short(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
