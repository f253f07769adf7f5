"""The loss and the advantage in other releases of verl, which have no training of ours, and without the extras."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

TRAINING = """
import numpy as np, torch, verl
import verl.trainer.ppo.rollout_corr_helper, verl.experimental.agent_loop.agent_loop  # as its trainers do
from support.batches import random_batch
from support.verl_losses import actor_config, run_loss
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

lengths = torch.tensor([[12], [5], [1], [9]])
mask = torch.arange(12) < lengths  # one sub-sequence a response
config = actor_config(clip_ratio_low=0.2, clip_ratio_high=0.3, clip_ratio_c=1e6)
for seed in range(5):
    log_prob, old, advantages, _ = random_batch(mask, seed)
    batch = log_prob, old, advantages[:, :1].expand(mask.shape), mask
    ours, theirs = (run_loss(name, batch, config) for name in ("gsspo", "gspo"))
    for mine, its in zip(ours[:2], theirs[:2]):
        torch.testing.assert_close(mine, its, rtol=1e-7, atol=1e-9)

rewards = torch.zeros(mask.shape).scatter(1, lengths - 1, torch.randn(4, 1))
index = np.array(["a", "a", "b", "b"], dtype=object)
ours, theirs = (get_adv_estimator_fn(name)(rewards, mask.float(), index)[0] for name in ("gsspo", "grpo"))
torch.testing.assert_close(ours * mask, theirs * mask, rtol=1e-4, atol=1e-4)
print(verl.__version__)
"""

WITHOUT_EXTRAS = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def python(code: str, *paths: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, paths))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("release", ["0.7.1", "0.8.0", "0.9.0"])
def test_with_one_turn_a_response_the_loss_is_the_releases_own_gspo(release: str, tmp_path: Path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(tmp_path), f"verl=={release}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"verl {release} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    trained = python(TRAINING, tmp_path, ROOT / "tests", ROOT, VERL_USE_EXTERNAL_MODULES="workflow_r1.verl_plugin")
    assert trained.stdout.split()[-1:] == [release], trained.stderr


def test_installing_the_package_asks_for_no_version_of_anything():
    """So that pip upgrades nothing in the environment of a verl that works."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = [Requirement(line) for line in project["dependencies"]]
    assert {requirement.name for requirement in base} == {"numpy", "torch", "wrapt"}
    assert [str(requirement) for requirement in base if requirement.specifier] == []


@pytest.mark.slow
def test_without_the_extras_verl_is_as_it_was_and_has_the_loss():
    code = WITHOUT_EXTRAS.format(absent={"openai", "httpx2", "typer", "bm25s"})
    done = python(
        f"{code}import json, verl, verl.trainer.ppo.v1.trainer_base, verl.experimental.agent_loop.agent_loop\n"
        "import verl.experimental.reward_loop.reward_manager.registry\n"
        "from workflow_r1.verl_plugin.check import missing_registrations\n"
        "from workflow_r1.verl_plugin.upstream import LEFT_OUT\n"
        "print(json.dumps([missing_registrations(), LEFT_OUT]))",
        ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "workflow_r1" not in done.stderr
    missing, _ = json.loads(done.stdout)
    assert "policy loss gsspo" not in missing
    assert "advantage estimator gsspo" not in missing


@pytest.mark.parametrize("absent", ["typer", "rich", "pydantic"])
def test_without_the_extras_a_command_is_one_sentence(absent: str):
    code = WITHOUT_EXTRAS.format(absent={absent})
    done = python(
        f"{code}sys.argv = ['workflow-r1', '--version']\nfrom workflow_r1.cli.__main__ import main\nmain()", ROOT
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: this needs {absent}, which is not installed: install what the commands need with "
        "pip install 'workflow-r1[train]'\n"
    )


@pytest.mark.slow
def test_where_there_is_no_verl_at_all_the_plugin_waits_for_it():
    code = WITHOUT_EXTRAS.format(absent={"verl", "ray", "pydantic", "openai"})
    done = python(f"{code}import workflow_r1.verl_plugin, workflow_r1.gsspo", ROOT)
    assert (done.returncode, done.stderr) == (0, "")
