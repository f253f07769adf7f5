"""The GPUs of this machine as `nvidia-smi` describes them, and the hardware choice of the recipes that they fit."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from workflow_r1.runs.hardware import ask_nvidia_smi
from workflow_r1.runs.recipe import CONFIG_DIR, LaunchError

_QUERY = "index,uuid,name,memory.total,memory.used,driver_version"
_AS_SOLD = 0.9  # a card sold with 24 GB shows 22.5 to 24 GiB, one with 141 GB shows 140.4


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: as `nvidia-smi` counts.
        total: its memory in GiB; None where `nvidia-smi` does not say.
        used: what of it processes hold already, in GiB; None likewise.
        driver: the driver's version.
    """

    index: int
    uuid: str
    name: str
    total: float | None
    used: float | None
    driver: str


def all_gpus() -> list[Gpu]:
    """Every NVIDIA GPU of the machine; none where there is no working `nvidia-smi`."""
    if not shutil.which("nvidia-smi"):
        return []
    lines = ask_nvidia_smi(f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits").splitlines()
    rows = [[part.strip() for part in line.split(",")] for line in lines]
    return [
        Gpu(int(row[0]), row[1], row[2], _gib(row[3]), _gib(row[4]), row[5])
        for row in rows
        if len(row) == len(_QUERY.split(",")) and row[0].isdecimal()
    ]


def visible_gpus(environ: Mapping[str, str]) -> list[Gpu]:
    """Those that a process sees: `CUDA_VISIBLE_DEVICES` may choose among them."""
    chosen, gpus = environ.get("CUDA_VISIBLE_DEVICES"), all_gpus()
    if chosen is None:
        return gpus
    names = [entry.strip() for entry in chosen.split(",")]
    return [
        gpu
        for gpu in gpus
        if any(name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name)) for name in names)
    ]


def chosen_hardware(config: DictConfig, overrides: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The value of `hardware` for a recipe that trains on GPUs, where the overrides name none.

    Returns:
        None where nothing is to be chosen, or no GPU is seen, which is said later in words of its own.

    Raises:
        LaunchError: there are GPUs, and no choice fits them.
    """
    if config.get("hardware") in (None, "cpu") or any(override.startswith("hardware=") for override in overrides):
        return None
    gpus = visible_gpus(environ)
    is_counted = any(override.startswith("trainer.n_gpus_per_node=") for override in overrides)
    return fitting_hardware(gpus, config.trainer.n_gpus_per_node if is_counted else len(gpus)) if gpus else None


def fitting_hardware(gpus: Sequence[Gpu], count: int) -> str:
    """The choice of `hardware=` for this many of the GPUs.

    Raises:
        LaunchError: there is none; one sentence that says which GPUs have one.
    """
    memory = min((gpu.total or 0.0 for gpu in gpus), default=0.0)
    fitting = {number: f"{number}x{size}" for number, size in _choices() if size * _AS_SOLD <= memory}
    if count in fitting:
        return fitting[count]
    fewer = [number for number in sorted(fitting) if number < count]
    remedy = (
        f"train on {fewer[-1]} of them, with CUDA_VISIBLE_DEVICES="
        f"{','.join(str(gpu.index) for gpu in gpus[: fewer[-1]])} for hardware={fitting[fewer[-1]]}, or name"
        if fewer
        else "take other GPUs, or name"
    )
    names = ", ".join(f"{number}x{size}" for number, size in _choices())
    raise LaunchError(
        f"No hardware choice of the recipes ({names}) fits {count} GPU(s) of {memory:.0f} GiB: {remedy} one yourself "
        "and set what is different here."
    )


def _choices() -> list[tuple[int, int]]:
    """Number of GPUs and memory in GB of every choice, in ascending order: its file's name says both."""
    names = (re.fullmatch(r"(\d+)x(\d+)", file.stem) for file in (CONFIG_DIR / "hardware").glob("*.yaml"))
    return sorted((int(name[1]), int(name[2])) for name in names if name)


def _gib(mib: str) -> float | None:
    return int(mib) / 1024 if mib.isdecimal() else None
