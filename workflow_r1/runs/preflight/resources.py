"""The machine's GPUs, cores, memory and disk against what the run takes of them.

Every check returns what it found, in words; what could not be looked at is said to be.
"""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from omegaconf import DictConfig

from workflow_r1.runs.gpus import visible_gpus
from workflow_r1.runs.memory import GIB, Estimate, Phase, estimate
from workflow_r1.runs.model_shape import shape_of
from workflow_r1.runs.recipe import LaunchError, total_steps

_ROLLOUT = "actor_rollout_ref.rollout"
_OF_A_DESKTOP = 2.0  # GiB of a GPU's memory that may be taken already
_CORES_OF_A_GPU = 3  # verl 0.9.1: ResourcePool's max_colocate_count
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryPlan:
    """The estimate beside what is there, in GiB; None is what could not be seen."""

    estimate: Estimate
    gpu: float | None
    host: float | None


def check_gpus(config: DictConfig, environ: Mapping[str, str]) -> str:
    """There are as many GPUs as the run takes, nobody else uses their memory, and vLLM's replicas divide them."""
    if config.trainer.device == "cpu":
        return "none is used"
    needed, tensor_parallel = (
        config.trainer.n_gpus_per_node,
        config.actor_rollout_ref.rollout.tensor_model_parallel_size,
    )
    if needed * config.trainer.nnodes % tensor_parallel:
        raise LaunchError(
            f"{_ROLLOUT}.tensor_model_parallel_size={tensor_parallel} does not divide the "
            f"{needed * config.trainer.nnodes} GPUs: set it to a divisor."
        )
    gpus = visible_gpus(environ)
    if environ.get("RAY_ADDRESS") or not gpus:
        return f"{needed} on a node are taken; those of {'the Ray cluster' if gpus else 'this machine'} are not seen"
    if len(gpus) < needed:
        raise LaunchError(
            f"trainer.n_gpus_per_node={needed}, and {len(gpus)} GPU(s) are visible here: name the hardware that is "
            "here, such as hardware=1x80, or take a machine with more."
        )
    for gpu in gpus[:needed]:
        if gpu.used is not None and gpu.used > _OF_A_DESKTOP:
            raise LaunchError(
                f"Other processes hold {gpu.used:.1f} GiB of GPU {gpu.index} ({gpu.name}), which training takes whole: "
                "stop them (nvidia-smi lists them; the operators' own vLLM belongs on other GPUs), or leave that GPU "
                "out with CUDA_VISIBLE_DEVICES."
            )
    unused = f"; {len(gpus) - needed} more stay unused" if len(gpus) > needed else ""
    return f"{needed} × {gpus[0].name}, driver {gpus[0].driver}{unused}"


def check_cores(config: DictConfig, environ: Mapping[str, str]) -> str:
    """Ray counts the cores that verl's actors reserve: with fewer verl, which looks at GPUs only, waits for ever."""
    if environ.get("RAY_ADDRESS") or config.trainer.nnodes > 1:
        return "those of a Ray cluster are not seen"
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    reserved = _CORES_OF_A_GPU * config.trainer.n_gpus_per_node + units + 2  # and its controller, and the trainer
    counted, own = config.ray_kwargs.ray_init.num_cpus, _cores()
    if (counted or own) < reserved:
        setting = f"ray_kwargs.ray_init.num_cpus={counted}" if counted else f"this machine has {own}"
        raise LaunchError(
            f"verl's actors reserve {reserved} CPU cores and {setting}, with which it would wait for ever: set "
            f"ray_kwargs.ray_init.num_cpus={reserved}, and they share what is there, or take a machine with more."
        )
    return f"verl's actors reserve {reserved}, Ray counts {counted or own}"


def memory_plan(config: DictConfig, environ: Mapping[str, str]) -> MemoryPlan | None:
    """The estimate for this run on this machine.

    Returns:
        None where the model is not made yet, or is none whose shape is known.
    """
    path = config.actor_rollout_ref.model.path
    shape = shape_of(path) if path else None
    if shape is None:
        return None
    gpus = [] if environ.get("RAY_ADDRESS") else visible_gpus(environ)[: config.trainer.n_gpus_per_node]
    totals = [gpu.total for gpu in gpus if gpu.total is not None]
    sold = str(config.get("hardware") or "").partition("x")[2]
    there = min(totals) if totals else 0.95 * int(sold) if sold else None
    on_cpu = config.trainer.device == "cpu"
    if there is None and not on_cpu:
        return None
    has_flash = importlib.util.find_spec("flash_attn") is not None
    seen = on_cpu or bool(totals)  # else this is a machine that plans for another
    return MemoryPlan(
        estimate(config, shape, there or 0.0, has_flash), None if on_cpu else there, _host_memory() if seen else None
    )


def check_memory(config: DictConfig, environ: Mapping[str, str]) -> str:
    """Every phase of a step fits, by the arithmetic of `workflow_r1.runs.memory`."""
    plan = memory_plan(config, environ)
    if plan is None:
        return "not estimated: the model is not made yet, or has no shape that is known"
    phases, rollout = plan.estimate.phases, config.actor_rollout_ref.rollout
    on_gpu, on_host = (max(phases, key=lambda phase: getattr(phase, place)) for place in ("gpu", "host"))
    smaller = "a smaller model" if config.actor_rollout_ref.model.lora_rank > 0 else "lora=r32, a smaller model"
    if plan.host is not None and on_host.host > plan.host:
        raise LaunchError(
            f"By estimate the phase '{on_host.name}' takes {on_host.host:.0f} GiB of this machine's memory, which has "
            f"{plan.host:.0f}: take {smaller}, or a machine with more."
        )
    if plan.gpu is not None and on_gpu.gpu > plan.gpu:
        raise LaunchError(
            f"By estimate the phase '{on_gpu.name}' takes {on_gpu.gpu:.1f} GiB of a GPU, which has {plan.gpu:.1f}: "
            f"{_remedy(config, on_gpu)}, or take {smaller} or more GPUs."
        )
    longest = config.data.max_prompt_length + config.data.max_response_length
    if plan.estimate.cached_tokens < longest:
        raise LaunchError(
            f"By estimate vLLM has room for {max(0, plan.estimate.cached_tokens):,} tokens beside the weights, and one "
            f"sequence takes up to {longest:,}: raise {_ROLLOUT}.tensor_model_parallel_size="
            f"{rollout.tensor_model_parallel_size} or {_ROLLOUT}.gpu_memory_utilization="
            f"{rollout.gpu_memory_utilization}, or take a smaller model."
        )
    host = f"{on_host.host:.0f} GiB of the host's {'memory' if plan.host is None else f'{plan.host:.0f}'}"
    gpu = "" if plan.gpu is None else f"{on_gpu.gpu:.1f} GiB of a GPU's {plan.gpu:.1f} ({on_gpu.name}), "
    return f"by estimate at most {gpu}{host} ({on_host.name})"


def check_disk(config: DictConfig, environ: Mapping[str, str]) -> str:
    """The checkpoints that are kept, and one that is being written, fit on the disk."""
    plan, trainer = memory_plan(config, environ), config.trainer
    if trainer.save_freq <= 0:
        return "no checkpoint is saved"
    if plan is None:
        return "not estimated"
    folder = Path(trainer.default_local_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    free, each = shutil.disk_usage(folder).free / GIB, plan.estimate.checkpoint
    kept = trainer.max_actor_ckpt_to_keep
    number = kept + 1 if kept else max(1, (_steps(config) or 1) // trainer.save_freq)
    if number * each > free:
        raise LaunchError(
            f"{number} checkpoints of {each:.0f} GiB do not fit in the {free:.0f} GiB that are free in {folder}: free "
            "some, name another trainer.default_local_dir, or keep fewer with trainer.max_actor_ckpt_to_keep."
        )
    return f"{number} checkpoints of {each:.1f} GiB at most, {free:.0f} GiB are free"


def _steps(config: DictConfig) -> int | None:
    return total_steps(config) if config.data.train_files else None


def _remedy(config: DictConfig, phase: Phase) -> str:
    """The first setting of this configuration that makes the phase smaller."""
    section, actor = "actor_rollout_ref.actor.fsdp_config", config.actor_rollout_ref.actor
    fsdp, utilization = actor.fsdp_config, config.actor_rollout_ref.rollout.gpu_memory_utilization
    for name in ("optimizer_offload", "param_offload"):
        if phase.name == "rollout" and not (fsdp[name] or fsdp.offload_policy):
            return f"set {section}.{name}=true"
    if phase.name == "rollout":
        return f"lower {_ROLLOUT}.gpu_memory_utilization={utilization}"
    if phase.name in ("update", "log-probs") and not config.actor_rollout_ref.model.use_fused_kernels:
        return "set actor_rollout_ref.model.use_fused_kernels=true"
    longest = config.data.max_prompt_length + config.data.max_response_length
    if (
        phase.name == "update"
        and actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size > 1.1 * longest
    ):
        return f"lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu}"
    return "shorten data.max_response_length" if fsdp.offload_policy else f"set {section}.offload_policy=true"


def _cores() -> int:
    """As Ray counts them: those of the machine, or of the container's quota."""
    cores = os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return max(1, min(cores, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else cores


def _host_memory() -> float:
    """GiB of the machine, or of the container."""
    total, limit = psutil.virtual_memory().total, _limit("memory.max")
    return min(total, int(limit) if limit.isdecimal() else total) / GIB


def _limit(name: str) -> str:
    file = _CGROUP / name
    return file.read_text().strip() if file.is_file() else ""
