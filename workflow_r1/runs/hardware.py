"""What this machine can train on: NVIDIA GPUs, or its CPU.

Run by itself it prints `gpu` or `cpu`, and behind that the note. requirements/bootstrap.sh does so before anything is
installed, so it needs nothing but Python.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ANSWER_SECONDS = 30.0  # without persistence mode many GPUs take a while; one that fell off its bus never answers
_VISIBLE = re.compile(r"\s*(\d+|GPU-|MIG-)")  # CUDA reads CUDA_VISIBLE_DEVICES up to the first entry that is none
_OTHERS = {  # other accelerators, and the commands and devices that a machine with their driver has
    "AMD GPUs": ("rocm-smi", "amd-smi", "rocminfo", "/dev/kfd"),
    "Ascend NPUs": ("npu-smi", "/dev/davinci_manager"),
    "AWS Neuron devices": ("neuron-ls", "/dev/neuron0"),
    "Biren GPUs": ("brsmi",),
    "Cambricon MLUs": ("cnmon", "/dev/cambricon_ctl"),
    "Enflame GCUs": ("efsmi",),
    "Gaudi accelerators": ("hl-smi",),
    "Google TPUs": ("tpu-info", "/dev/accel0"),
    "Hygon DCUs": ("hy-smi",),
    "Iluvatar GPUs": ("ixsmi",),
    "Intel GPUs": ("xpu-smi", "xpumcli", "sycl-ls"),
    "Kunlunxin XPUs": ("xpu_smi", "/dev/xpuctrl"),
    "MetaX GPUs": ("mx-smi",),
    "Moore Threads GPUs": ("mthreads-gmi",),
    "Tenstorrent accelerators": ("tt-smi", "/dev/tenstorrent"),
}


class HardwareError(Exception):
    """A choice of GPUs that leaves none; one sentence that says what to do."""


@dataclass(frozen=True)
class Hardware:
    """What was found.

    Attributes:
        gpu: an NVIDIA GPU that a process may use.
        note: one sentence on what is here and cannot be used; "" if there is nothing of the kind.
    """

    gpu: bool
    note: str = ""


def find_hardware(environ: Mapping[str, str]) -> Hardware:
    """Ask `nvidia-smi`, unless `CUDA_VISIBLE_DEVICES` hides every GPU on purpose; know other accelerators by name.

    Raises:
        HardwareError: `CUDA_VISIBLE_DEVICES` names GPUs, and none that is here.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    has_driver = bool(shutil.which("nvidia-smi"))
    if visible is not None and not _VISIBLE.match(visible):
        hidden = f"CUDA_VISIBLE_DEVICES={visible.strip()!r} hides the NVIDIA GPUs: unset it to train on them."
        return Hardware(gpu=False, note=hidden if has_driver else "")
    trouble = ""
    if has_driver:
        listed = ask_nvidia_smi("-L")
        if re.search(r"^GPU \d", listed, re.MULTILINE):
            _check_choice(visible, listed)
            return Hardware(gpu=True)
        if "No devices were found" not in listed:
            said = "".join(filter(str.isprintable, listed.partition("\n")[0]))[:200]
            trouble = f"nvidia-smi lists no GPU ({said}): mend its driver to train on one"
    others = [name for name, marks in _OTHERS.items() if any(shutil.which(m) or Path(m).exists() for m in marks)]
    unused = f"{' and '.join(others)} are not used"
    if trouble:
        return Hardware(gpu=False, note="; ".join([trouble, *([unused] if others else []), "the CPU is used."]))
    reason = f"{unused}: Workflow-R1 trains on NVIDIA GPUs or, in small, on the CPU."
    return Hardware(gpu=False, note=reason if others else "")


def _check_choice(visible: str | None, listed: str) -> None:
    """As CUDA reads the variable: the first GPU that it names has to be there, and none may be named twice."""
    if visible is None:
        return
    named = [entry.strip() for entry in visible.split(",")]
    gpus = re.findall(r"^GPU (\d+)", listed, re.MULTILINE)
    ids = re.findall(r"UUID: ([\w/-]+)", listed)
    number = re.match(r"\d+", named[0])
    is_there = int(number[0]) < len(gpus) if number else sum(full.startswith(named[0]) for full in ids) == 1
    if not is_there or len(set(named)) < len(named):
        fault = "names a GPU twice" if is_there else "begins with no GPU of this machine"
        raise HardwareError(
            f"CUDA_VISIBLE_DEVICES={visible!r} {fault}, so CUDA shows none: unset it, name GPUs that nvidia-smi lists "
            f"({', '.join(gpus)}), or set it to '' to train on the CPU."
        )


def ask_nvidia_smi(*arguments: str) -> str:
    """What `nvidia-smi` says, with `-L` a line per GPU, or its trouble."""
    with tempfile.TemporaryFile() as output:  # a pipe would be waited for as long as a child of a hung one holds it
        try:
            subprocess.run(
                ["nvidia-smi", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_ANSWER_SECONDS:.0f} s"
        except OSError as error:
            return str(error)
        output.seek(0)
        return output.read().decode(errors="replace").strip() or "no output"


if __name__ == "__main__":
    try:
        found = find_hardware(os.environ)
    except HardwareError as error:
        sys.exit(f"error: {error}")
    print("gpu" if found.gpu else "cpu", found.note)
