"""The machine: its system and hardware, the compiler that vLLM needs, and a verl that has loaded our plug-in."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.cpu_environment import vllm_is_for_cpu
from workflow_r1.runs.hardware import Hardware, HardwareError, find_hardware
from workflow_r1.runs.recipe import LaunchError

# verl is imported first and alone: importing anything of the plug-in would register it.
_PLUGIN_CHECK = """
import json, sys, verl
if "workflow_r1.verl_plugin" not in sys.modules:
    sys.exit("its entry point was not loaded")
from workflow_r1.verl_plugin.check import missing_registrations, unknown_names
from workflow_r1.verl_plugin.upstream import LEFT_OUT
if missing := missing_registrations():
    sys.exit("not registered: " + ", ".join([*missing, *LEFT_OUT.values()]))
for sentence in unknown_names(json.loads(sys.argv[1])):
    print(sentence)
"""
_NAMED = ("actor_rollout_ref.actor.policy_loss.loss_mode", "algorithm.adv_estimator", "reward.reward_manager.name")


def check_system() -> None:
    """The operating system, and Python's version."""
    if sys.platform != "linux":
        raise LaunchError(
            f"Training runs on Linux, and this is {sys.platform}: on Windows start it in WSL 2, on macOS in a Linux "
            "container or virtual machine."
        )
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        python = ".".join(map(str, sys.version_info[:3]))
        raise LaunchError(f"This is Python {python}; verl 0.9.1 runs on 3.10 to 3.12: start with another Python.")


def usable_hardware() -> Hardware:
    """What torch can train on here.

    Raises:
        LaunchError: there is an NVIDIA GPU that a torch built for GPUs cannot use, or none of those that are asked for.
    """
    if torch.cuda.is_available():
        return Hardware(gpu=True)
    try:
        found = find_hardware(os.environ)
    except HardwareError as error:
        raise LaunchError(str(error)) from None
    if not found.gpu:
        return found
    if torch.version.cuda is None:
        return Hardware(
            gpu=False,
            note="nvidia-smi lists a GPU, and torch here is a build for the CPU, which is used: 'bash train.sh' "
            "installs the other.",
        )
    raise LaunchError(
        f"nvidia-smi lists a GPU, and torch {torch.__version__} cannot use it ({_why_no_gpu()}): update the driver to "
        f"one for CUDA {torch.version.cuda}, or set CUDA_VISIBLE_DEVICES='' for 'bash train.sh' on the CPU."
    )


def _why_no_gpu() -> str:
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return str(error).partition("\n")[0].partition(". ")[0]
    return "it gives no reason"


def check_machine(device: str) -> None:
    """What a recipe for verl's `trainer.device` needs: a GPU, or vLLM's CPU build and a compiler for its sampler."""
    if device == "cuda":
        hardware = usable_hardware()
        if not hardware.gpu:
            note = f" ({hardware.note.rstrip('.')})" if hardware.note else ""
            raise LaunchError(
                f"The recipe trains on GPUs (trainer.device=cuda), and torch sees none{note}: leave --recipe out to "
                "train on the CPU."
            )
        return
    if device != "cpu":
        raise LaunchError(f"trainer.device is {device!r}: Workflow-R1 trains on 'cuda' or 'cpu'.")
    if not vllm_is_for_cpu():
        raise LaunchError(
            "The recipe trains on the CPU (trainer.device=cpu), and vLLM's build for it is not installed here: start "
            "it with CUDA_VISIBLE_DEVICES='' and 'bash train.sh', which installs it, or install requirements/cpu.txt."
        )
    if not any(shutil.which(compiler) for compiler in ("g++", "c++", "clang++")):
        raise LaunchError("No C++ compiler found, and vLLM compiles its CPU sampler with one: install g++.")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise LaunchError(
            "Python's headers are missing, and vLLM compiles its CPU sampler against them: install python3-dev."
        )


def check_temporary_folders(environ: Mapping[str, str]) -> None:
    """Ray's sockets fit into its folder (Linux takes 107 bytes of a path), and command lines can hold both folders."""
    room = 107 - len("/ray/session_2026-11-25_03-22-34_123456_4194304/sockets/plasma_store")
    of_ray = "RAY_TMPDIR" if environ.get("RAY_TMPDIR") else "TMPDIR"
    for name in ("RAY_TMPDIR", "TMPDIR"):
        folder = environ.get(name, "")
        if folder and (shlex.quote(folder) != folder or (name == of_ray and len(folder) > room)):
            raise LaunchError(
                f"{name} is {folder!r}, where Ray and torch's compiler cannot work: set it to a folder such as /tmp, "
                f"of at most {room} ASCII characters without blanks and quotes."
            )


def check_plugin(environ: Mapping[str, str], config: DictConfig | None = None) -> None:
    """verl loads our entry point and finds every registration; verl itself reports a failed plug-in at DEBUG only.

    Args:
        environ: of the run.
        config: a recipe, whose loss, estimator and reward manager verl has to know too.
    """
    named = {} if config is None else {setting: OmegaConf.select(config, setting) for setting in _NAMED}
    if config is not None and config.reward.reward_manager.source != "register":  # then it names a class in a file
        del named["reward.reward_manager.name"]
    command = [sys.executable, "-c", _PLUGIN_CHECK, json.dumps(named)]
    check = subprocess.run(command, env=dict(environ), capture_output=True, text=True)
    if check.returncode:
        detail = check.stderr.strip().splitlines()[-1]
        raise LaunchError(
            f"verl did not load the Workflow-R1 plug-in ({detail}): reinstall it, a checkout with "
            "'pip install --no-deps -e .', a wheel with 'pip install --no-deps --force-reinstall', and leave "
            "VERL_USE_EXTERNAL_PLUGINS unset."
        )
    if unknown := [line for line in check.stdout.splitlines() if line.startswith(_NAMED)]:
        raise LaunchError(unknown[0])
