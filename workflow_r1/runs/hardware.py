"""What this machine can train on: NVIDIA GPUs, or its CPU.

Run by itself it prints `gpu` or `cpu`, and behind that the note. requirements/bootstrap.sh does so before anything is
installed, so it needs nothing but Python.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ANSWER_SECONDS = 30.0  # without persistence mode many GPUs take a while; one that fell off its bus never answers
_VISIBLE = re.compile(r"\s*(\d+|GPU-|MIG-)")  # CUDA reads CUDA_VISIBLE_DEVICES up to the first entry that is none
_OTHERS = {  # other accelerators, and the commands and devices that a machine with their driver has
    "AMD GPUs": ("rocm-smi", "amd-smi", "rocminfo", "/dev/kfd"),
    "Ascend NPUs": ("npu-smi", "/dev/davinci_manager"),
    "Intel GPUs": ("xpu-smi",),
    "Gaudi accelerators": ("hl-smi",),
}


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
    """Ask `nvidia-smi`, unless `CUDA_VISIBLE_DEVICES` hides every GPU on purpose; know other accelerators by name."""
    if not _VISIBLE.match(environ.get("CUDA_VISIBLE_DEVICES", "0")):
        return Hardware(gpu=False)
    trouble = ""
    if shutil.which("nvidia-smi"):
        listed = _listed_gpus()
        if re.search(r"^GPU \d", listed, re.MULTILINE):
            return Hardware(gpu=True)
        if "No devices were found" not in listed:
            first_line = listed.partition("\n")[0]
            trouble = f"nvidia-smi lists no GPU ({first_line}): mend its driver to train on one; the CPU is used."
    others = [name for name, marks in _OTHERS.items() if any(shutil.which(m) or Path(m).exists() for m in marks)]
    unused = f"{' and '.join(others)} are not used: Workflow-R1 trains on NVIDIA GPUs or, in small, on the CPU."
    return Hardware(gpu=False, note=trouble or (unused if others else ""))


def _listed_gpus() -> str:
    """What `nvidia-smi -L` says, a line per GPU or its trouble."""
    with tempfile.TemporaryFile() as output:  # a pipe would be waited for as long as a child of a hung one holds it
        try:
            subprocess.run(
                ["nvidia-smi", "-L"],
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
    found = find_hardware(os.environ)
    print("gpu" if found.gpu else "cpu", found.note)
