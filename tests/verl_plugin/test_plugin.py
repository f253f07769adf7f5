"""What verl finds once this package is installed, and what it costs a user who selects nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from workflow_r1.runs.preflight import check_plugin
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.verl_plugin.check import LOSS_MODE, unknown_names
from workflow_r1.verl_plugin.upstream import REGISTRATIONS


def python(code: str, **environ: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
def test_importing_verl_imports_nothing_of_ours_but_the_entry_point():
    """Registration waits for the module whose registry it fills, so `import verl` loads no loss and no client."""
    loaded = python(
        "import sys, verl\n"
        "print(*sorted(m for m in sys.modules if m.startswith(('workflow_r1', 'openai', 'pydantic_settings'))))\n"
    )
    ours = ["workflow_r1", "workflow_r1.verl_plugin", "workflow_r1.verl_plugin.cpu", "workflow_r1.verl_plugin.upstream"]
    assert loaded.split() == ours


@pytest.mark.slow
def test_everything_is_registered_once_verls_registries_are_imported():
    """The process names nothing of ours: what is registered, verl's entry point and its imports have registered."""
    registered = python(
        "import verl\n"
        f"import {', '.join(REGISTRATIONS)}\n"
        "from verl.experimental.agent_loop.agent_loop import _agent_loop_registry\n"
        "from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER\n"
        "from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY\n"
        "from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY\n"
        "print(_agent_loop_registry['workflow_r1_agent_loop']['_target_'])\n"
        "ours = REWARD_MANAGER['workflow_r1'], ADV_ESTIMATOR_REGISTRY['gsspo'], POLICY_LOSS_REGISTRY['gsspo']\n"
        "for one in (*ours, TRAINER_REGISTRY['workflow_r1']):\n"
        "    print(f'{one.__module__}.{one.__name__}')\n"
    )
    assert registered.split() == [
        "workflow_r1.verl_plugin.agent_loop.WorkflowAgentLoop",
        "workflow_r1.verl_plugin.reward_manager.WorkflowRewardManager",
        "workflow_r1.verl_plugin.gsspo_loss.compute_gsspo_advantage",
        "workflow_r1.verl_plugin.gsspo_loss.compute_policy_loss_gsspo",
        "workflow_r1.verl_plugin.trainer.WorkflowTrainer",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["session", "agent_loop"])
def test_a_module_can_be_imported_before_verls_that_imports_it(module):
    assert python(f"import workflow_r1.verl_plugin.{module}; print('imported')") == "imported"


@pytest.mark.slow
def test_the_launcher_finds_the_plugin_loaded():
    check_plugin(os.environ)


@pytest.mark.slow
def test_a_loss_or_an_estimator_that_verl_does_not_know_stops_the_launch_by_its_name():
    settings = {
        "actor_rollout_ref.actor.policy_loss.loss_mode": "gspo2",
        "algorithm.adv_estimator": "grpo",
        "reward.reward_manager": {"source": "importlib", "name": "MyManager"},
    }
    config = OmegaConf.create()
    for setting, name in settings.items():
        OmegaConf.update(config, setting, name, force_add=True)
    with pytest.raises(
        LaunchError, match=r"policy_loss\.loss_mode=gspo2 is unknown to verl: take one of .*gspo, gsspo"
    ):
        check_plugin(os.environ, config)


def test_names_that_verl_knows_are_known():
    loss, estimator = LOSS_MODE, "algorithm.adv_estimator"
    assert (
        unknown_names({loss: "gsspo", estimator: "gsspo"}) == unknown_names({loss: "vanilla", estimator: "grpo"}) == []
    )
    [sentence] = unknown_names({loss: "gsspo", estimator: "gspo"})
    assert sentence.startswith("algorithm.adv_estimator=gspo is unknown to verl: take one of ")
    manager = "reward.reward_manager.name"
    assert unknown_names({manager: "workflow_r1"}) == unknown_names({manager: "naive"}) == []
    [sentence] = unknown_names({manager: "workflow-r1"})
    assert sentence.startswith(f"{manager}=workflow-r1 is unknown to verl: take one of dapo, ")


@pytest.mark.parametrize(
    ("source", "name", "complaint"),
    [
        ("def mine(**inputs): ...", "other", "is not there: "),
        ("mine = 3", "mine", "is no function."),
        ("import nothing_of_that_name", "mine", "cannot be imported (ModuleNotFoundError: No module named "),
        ("raise SystemExit(2)", "mine", "cannot be imported (SystemExit: 2)."),
        ("def mine(:", "mine", "cannot be imported (SyntaxError: "),
    ],
)
def test_a_loss_of_ones_own_that_cannot_be_had_is_one_sentence(tmp_path, source, name, complaint):
    (tmp_path / "own.py").write_text(source)
    [sentence] = unknown_names({LOSS_MODE: f"{tmp_path}/own.py:{name}"})
    assert sentence.startswith(f"{LOSS_MODE}: the loss {tmp_path}/own.py:{name} {complaint}")
    assert "\n" not in sentence
    (tmp_path / "own.py").write_text("def mine(**inputs): ...")
    assert unknown_names({LOSS_MODE: f"{tmp_path}/own.py:mine"}) == []


@pytest.mark.slow
def test_a_plugin_that_verl_did_not_load_stops_the_launch_with_one_sentence():
    with pytest.raises(LaunchError, match=r"did not load the Workflow-R1 plug-in \(its entry point was not loaded\)"):
        check_plugin({**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none"})


@pytest.mark.slow
def test_a_registration_that_is_missing_stops_the_launch_by_its_name(tmp_path: Path):
    # Python runs this file at its start: there is a module of the reward manager's name, and it registers nothing.
    empty = "import sys, types\nsys.modules['workflow_r1.verl_plugin.reward_manager'] = types.ModuleType('empty')\n"
    (tmp_path / "sitecustomize.py").write_text(empty)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with pytest.raises(LaunchError, match=r"plug-in \(not registered: reward manager workflow_r1\): reinstall it"):
        check_plugin({**os.environ, "PYTHONPATH": path})


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["", "cpu"])
def test_the_cpu_platform_is_there_only_when_asked_for(platform):
    code = (
        "import verl\n"
        "from verl.plugin.platform.platform_manager import PlatformRegistry\n"
        "print('cpu' in PlatformRegistry.registered_names())"
    )
    assert python(code, VERL_PLATFORM=platform) == str(platform == "cpu")
