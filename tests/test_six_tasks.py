"""Every diff of docs/six_tasks.md applies to the code as it is, and does what the page says."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.batches import random_batch
from support.faulty_endpoint import result
from support.verl_losses import actor_config, run_loss

from workflow_r1 import gsspo
from workflow_r1.data.benchmarks import load_benchmark
from workflow_r1.reward import Reward, RewardSettings
from workflow_r1.trajectory import EndedBy, Trajectory, Turn, write_jsonl
from workflow_r1.verl_plugin.gsspo_loss import GSsPOLossConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "six_tasks.md").read_text(encoding="utf-8")


@pytest.fixture
def applied(tmp_path, monkeypatch):
    """Applies the diff of the page that ends in a file, to a copy of it, and says where it is."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def apply(path: str) -> Path:
        [diff] = [
            diff
            for diff in re.findall(r"^```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
            if f"+++ b/{path}\n" in diff
        ]
        if (ROOT / path).exists():
            (tmp_path / path).parent.mkdir(parents=True)
            shutil.copy(ROOT / path, tmp_path / path)
        subprocess.run(["git", "apply", "--recount", "-"], input=diff, text=True, cwd=tmp_path, check=True)
        return tmp_path / path

    return apply


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"changed_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_the_loss_is_found_and_changed_in_one_file(applied):
    log_prob, zeros, mask = torch.tensor([[0.1, 0.2, 9.0, 0.3]]), torch.zeros(1, 4), torch.tensor([[1, 1, 0, 1]])
    ratios = [
        module.gsspo_loss(log_prob, zeros, zeros, mask, clip_low=0.2, clip_high=0.2).ratio.log().tolist()
        for module in (gsspo, loaded(applied("workflow_r1/gsspo.py")))
    ]
    assert ratios == [pytest.approx([0.15, 0.3]), pytest.approx([0.3, 0.3])]


async def test_an_operator_is_one_file_and_one_line(applied, endpoint, make_pool):
    applied("my_operators.py")
    [line] = re.findall(r"workflow_r1\.pool\.modules=\[(\w+)\]", PAGE)
    endpoint.behaviour = result("It rained.")
    called = await make_pool(modules=(line,)).call("Simplify", "Precipitation was observed.")
    assert called.text == "It rained."
    assert endpoint.bodies[0]["messages"][0]["content"].endswith("\n\nPrecipitation was observed.")


@pytest.mark.parametrize(("answer", "reward"), [("the Seine river", 2 / 3), (None, 0.0)])
async def test_the_reward_is_one_file_and_one_line(applied, answer, reward):
    applied("my_reward.py")
    [line] = re.findall(r"workflow_r1\.reward\.function=(\S+)", PAGE)
    trajectory = Trajectory(question="q", turns=[Turn(text="t", answer=answer)], ended_by=EndedBy.ANSWERED)
    await Reward(RewardSettings(function=line)).score(trajectory, ["Seine"], {})
    assert trajectory.reward == {"reward": pytest.approx(reward)}


def test_a_benchmark_is_one_file(applied):
    examples = load_benchmark(str(applied("my_quiz.jsonl")))
    assert [(example.data_source, example.golds[-1]) for example in examples] == [
        ("my_quiz", "Seine"),
        ("my_quiz", "Jane Austen"),
    ]


def test_a_benchmark_with_a_name_is_one_line(applied):
    source = loaded(applied("workflow_r1/data/sources.py")).open_source("webq")
    [file] = source.evaluation
    assert (file.data_source, file.origin.endswith("/web_questions/test.jsonl")) == ("webq", True)


def test_a_loss_variant_is_one_file_and_one_line(applied):
    applied("my_loss.py")
    [name] = re.findall(r"policy_loss\.loss_mode=(\S+)", PAGE)
    config = actor_config(policy_loss=GSsPOLossConfig(loss_mode=name))
    new, old, advantages, mask = random_batch([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]], seed=0)
    last = torch.tensor([[0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]])
    loss, gradient, metrics = run_loss(name, (new, old, advantages, mask), config)
    expected = run_loss("gsspo", (new, old, advantages, last), config)
    torch.testing.assert_close((loss, gradient), expected[:2])
    assert metrics["actor/subsequences_per_response"] == 1


def test_why_trajectories_ended_is_said(applied, tmp_path):
    broken = Turn(text="<think>", error="A turn needs one action.")
    answered = Turn(text="<think></think><answer>Paris</answer>", answer="Paris")
    trajectories = [
        Trajectory(question="q", turns=[broken], ended_by=EndedBy.MALFORMED),
        Trajectory(question="q", turns=[answered], ended_by=EndedBy.ANSWERED),
    ]
    write_jsonl(tmp_path / "1.jsonl", trajectories)
    command = [sys.executable, str(applied("why.py")), str(tmp_path / "1.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "malformed A turn needs one action.\n"
