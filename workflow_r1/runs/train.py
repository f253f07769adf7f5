"""`workflow-r1 train`: check everything, start verl's trainer, show progress, report."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.training import as_pattern
from workflow_r1.runs import preflight
from workflow_r1.runs.checkpoints import last_step
from workflow_r1.runs.cpu_environment import cpu_environment
from workflow_r1.runs.embedded import embedded_policy, embedded_world, stand_ins
from workflow_r1.runs.opening import open_recipe
from workflow_r1.runs.progress import follow
from workflow_r1.runs.recipe import (
    LaunchError,
    compose_recipe,
    quoted,
    total_steps,
)
from workflow_r1.runs.report import RunReport, print_report
from workflow_r1.runs.resume import Start, find_start, set_aside, starts_anew
from workflow_r1.runs.run_watch import WATCH_FILE, forget_warnings
from workflow_r1.runs.stop import forget_stop, read_stop
from workflow_r1.runs.trackers import tracker_places, trackers_of
from workflow_r1.runs.trainer import start_trainer
from workflow_r1.services.coordinator import LEDGER_FILE
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.system.endings import end_in_order, uninterrupted
from workflow_r1.system.folder_lock import FolderInUseError, FolderLock
from workflow_r1.system.terminal import TextConsole

_CAUSE = re.compile(r"^(\S*\.)?\w*(Error|Exception)(\(.*\))?: ")


def train(overrides: Sequence[str], recipe: str | None = None) -> int:
    """Run a training recipe to its end and print the report.

    Args:
        overrides: Hydra overrides.
        recipe: a configuration's name; by default the reference recipe where torch sees a GPU, else the embedded one.

    Returns:
        0, or the trainer's exit code.

    Raises:
        LaunchError: the run cannot start.
    """
    console = TextConsole(soft_wrap=True)
    preflight.check_system()
    opening = open_recipe(overrides, recipe)
    recipe, overrides, config = opening.recipe, opening.overrides, opening.config
    for note in opening.notes:
        console.print(note, style="yellow")
    WorkflowConfig.parse(config)
    preflight.check_machine(config.trainer.device)
    preflight.check_temporary_folders(os.environ)
    cpu = config.trainer.device == "cpu"
    output_dir = _output_dir(config)

    end_in_order()
    with ExitStack() as stack:
        lock = stack.enter_context(closing(_lock(output_dir, console)))
        if has_world := "world" in config:
            reason = "The" if torch.cuda.is_available() else "No GPU: the"
            console.print(
                f"{reason} embedded run. verl, Ray, FSDP, vLLM and HTTP are real; small stand-ins: "
                f"{', '.join(stand_ins(config)) or 'none'}.",
            )
            world = stack.enter_context(embedded_world(config, output_dir))
            os.environ.update(world.environ)
            overrides = [*overrides, *world.overrides]
        trackers, start = trackers_of(config), find_start(config, output_dir)
        place = f"trainer.default_local_dir={quoted(output_dir)}"
        overrides = [*overrides, place, f"trainer.logger=[{','.join(trackers)}]"]
        if config.trainer.resume_mode == "resume_path":
            overrides = [*overrides, f"trainer.resume_from_path={quoted(start.checkpoint)}"]
        config = compose_recipe(recipe, overrides)
        environ = _environment(trackers, cpu, output_dir)
        needs_policy = has_world and config.actor_rollout_ref.model.path is None
        with console.status("checking the configuration"):
            _check(console, config, environ, needs_policy, start)
            template, lost_text = (None, None) if needs_policy else preflight.check_chat_template(config)
        if template:
            console.print("The policy has no chat template that will do and gets another: docs/models.md says which.")
            overrides = [*overrides, f"actor_rollout_ref.model.custom_chat_template={quoted(template)}"]
        warnings = [lost_text, preflight.clip_range_warning(config)]
        for note in filter(None, [*warnings, *preflight.unread_notes(config)]):
            console.print(note, style="yellow")
        if needs_policy:
            overrides = [*overrides, f"actor_rollout_ref.model.path={quoted(embedded_policy(config))}"]
        config = compose_recipe(recipe, overrides)
        with console.status("measuring the prompts"):
            notes = preflight.check_lengths(config)
        for note in notes:
            console.print(note, style="yellow")
        return _run(console, recipe, overrides, config, environ, output_dir, start, lock)


def _lock(output_dir: Path, console: Console) -> FolderLock:
    try:
        with console.status("waiting for an earlier run in this folder to end"):
            lock = FolderLock(output_dir)
    except FolderInUseError as holder:
        raise LaunchError(
            f"{output_dir} is taken by another run ({holder}): wait for it, stop it, or choose another "
            "trainer.default_local_dir."
        ) from None
    if not lock.is_held:
        console.print(f"The file system of {output_dir} takes no locks: see to it that no second run uses this folder.")
    return lock


def _output_dir(config: DictConfig) -> Path:
    """The run's folder, made now."""
    named = config.trainer.default_local_dir
    if not named or "://" in named:
        raise LaunchError(
            f"trainer.default_local_dir={named} is no folder of this machine, which a run needs: name one."
        )
    folder = Path(named).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError as error:
        raise LaunchError(
            f"trainer.default_local_dir is {folder}, and nothing can be written there ({error.strerror}): name another "
            "folder."
        ) from None


def _of_the_trainer_alone(config: DictConfig, output_dir: Path) -> Iterator[str]:
    """Overrides for verl's process alone: a folder for Hydra, and data files as the patterns that it takes them for."""
    yield f"hydra.run.dir={quoted(output_dir / 'hydra')}"
    for name in ("train_files", "val_files"):
        files = config.data[name]
        paths = [files] if isinstance(files, str) else files
        yield f"data.{name}=[{','.join(quoted(as_pattern(path)) for path in paths)}]"


def _environment(trackers: list[str], cpu: bool, output_dir: Path) -> Mapping[str, str]:
    metrics = next(path for i in count(1) if not (path := output_dir / f"metrics-{i:03d}.jsonl").exists())
    environ = {**os.environ, **tracker_places(trackers, output_dir, os.environ), "VERL_FILE_LOGGER_PATH": str(metrics)}
    return cpu_environment(cache_dir(), environ) if cpu else environ


def _check(console: Console, config: DictConfig, environ: Mapping[str, str], needs_policy: bool, start: Start) -> None:
    for subject, check in preflight.checks(config, environ, start.checkpoint):
        found = None if subject == "model" and needs_policy else check()
        if isinstance(found, str) and config.trainer.device == "cuda":
            console.print(f"{subject}: {found}.")


def _run(
    console: Console,
    recipe: str,
    overrides: Sequence[str],
    config: DictConfig,
    environ: Mapping[str, str],
    output_dir: Path,
    start: Start,
    lock: FolderLock,
) -> int:
    steps, val_only = total_steps(config), config.trainer.val_only
    log, trajectory_dir = output_dir / "train.log", config.trainer.v1.sampler.sampler_kwargs.trajectory_dir
    report = RunReport(
        output_dir,
        trajectory_dir=Path(trajectory_dir) if trajectory_dir else None,
        ledger=Path(config.workflow_r1.run_dir) / LEDGER_FILE if config.workflow_r1.run_dir else None,
    )
    if steps and start.step >= steps and not val_only:
        console.print(
            f"{start.folder} holds a finished run of {start.step} steps: raise trainer.total_training_steps to go on."
        )
        print_report(console, report)
        return 0
    if start.checkpoint:
        console.print(f"{'Validating' if val_only else 'Resuming from'} step {start.step} of {start.folder}.")
    if starts_anew(config, start, output_dir) and (aside := set_aside(output_dir)):
        console.print(f"Starting anew: what an earlier run left in {output_dir} is now in {aside}.")
    if config.trainer.save_freq <= 0 and not val_only:
        console.print(f"trainer.save_freq={config.trainer.save_freq}: no checkpoint will be saved.")
    console.print(f"verl's log goes to {log}")
    log_start = log.stat().st_size if log.exists() else 0
    forget_stop(output_dir)
    if not val_only:
        forget_warnings(output_dir, after=start.step)
    trainer = start_trainer(recipe, [*overrides, *_of_the_trainer_alone(config, output_dir)], environ, log, lock)
    try:
        metrics, watch = Path(environ["VERL_FILE_LOGGER_PATH"]), output_dir / WATCH_FILE
        follow(console, metrics, log, log_start, watch, steps, lambda: trainer.running)
    except KeyboardInterrupt:
        console.print(f"Interrupted: stopping. {_resumes(config, output_dir)}")
        return 130
    finally:
        with uninterrupted(), console.status("stopping the trainer and its servers"):
            trainer.stop()
    stop = read_stop(output_dir)
    if trainer.exit_code and not (stop and stop.on_purpose):
        error = stop.reason if stop else last_error(log, log_start, trainer.exit_code)
        raise LaunchError(f"Training failed: {error} The whole log is in {log}.")
    print_report(console, report)
    if stop:
        saved = last_step(output_dir)
        raise LaunchError(
            f"Stopped{f', with step {saved} saved' if saved else ''}: {stop.reason} {_resumes(config, output_dir)}"
        )
    return 0


def _resumes(config: DictConfig, output_dir: Path) -> str:
    how = "The same command" if config.trainer.resume_mode == "auto" else "With trainer.resume_mode=auto it"
    step = last_step(output_dir)
    return f"{how} resumes from step {step}." if step else "The same command starts again."


def last_error(log: Path, start: int = 0, exit_code: int = 1) -> str:
    """Why a trainer ended that could not say so itself, such as one that never came up.

    It is the last line of its log that names an exception, which in a Ray traceback is the cause.
    """
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if _CAUSE.match(line)]
    if errors:
        return errors[-1].strip()
    if exit_code == 128 + signal.SIGKILL:
        return "the trainer was killed, as the system does when memory runs out: see what 'dmesg' says."
    return "the trainer stopped without saying why."
