"""The machine: Python, the compiler that vLLM needs, and a verl that has loaded our plug-in."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from workflow_r1.launch.recipe import LaunchError

# verl is imported first and alone: importing anything of the plug-in would register it.
_PLUGIN_CHECK = """
import json, sys, verl
if "workflow_r1.verl_plugin" not in sys.modules:
    sys.exit("its entry point was not loaded")
from workflow_r1.verl_plugin.check import missing_registrations, unknown_names
if missing := missing_registrations():
    sys.exit("not registered: " + ", ".join(missing))
for sentence in unknown_names(json.loads(sys.argv[1])):
    print(sentence)
"""
_NAMED = ("actor_rollout_ref.actor.policy_loss.loss_mode", "algorithm.adv_estimator")


def check_machine(cpu: bool) -> None:
    """Python's version, and on a CPU the compiler that vLLM's sampler needs."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        version = ".".join(map(str, sys.version_info[:3]))
        raise LaunchError(f"This is Python {version}; verl 0.9.1 runs on 3.10 to 3.12: start with another Python.")
    if not cpu:
        return
    if not any(shutil.which(compiler) for compiler in ("g++", "c++", "clang++")):
        raise LaunchError("No C++ compiler found, and vLLM compiles its CPU sampler with one: install g++.")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise LaunchError(
            "Python's headers are missing, and vLLM compiles its CPU sampler against them: install python3-dev."
        )


def check_plugin(environ: Mapping[str, str], config: DictConfig | None = None) -> None:
    """verl loads our entry point and finds every registration; verl itself reports a failed plug-in at DEBUG only.

    Args:
        environ: of the run.
        config: a recipe, whose loss and estimator verl has to know too.
    """
    named = {} if config is None else {setting: OmegaConf.select(config, setting) for setting in _NAMED}
    command = [sys.executable, "-c", _PLUGIN_CHECK, json.dumps(named)]
    check = subprocess.run(command, env=dict(environ), capture_output=True, text=True)
    if check.returncode:
        detail = check.stderr.strip().splitlines()[-1]
        raise LaunchError(
            f"verl did not load the Workflow-R1 plug-in ({detail}): reinstall it with "
            "'pip install --no-deps -e .' and leave VERL_USE_EXTERNAL_PLUGINS unset."
        )
    if unknown := [line for line in check.stdout.splitlines() if line.startswith(_NAMED)]:
        raise LaunchError(unknown[0])
