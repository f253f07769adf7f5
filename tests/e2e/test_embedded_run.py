"""`train.sh` without a GPU: interrupted, resumed, finished, what it leaves; and what it leaves, evaluated.

The evaluation goes from verl's checkpoint through its merger and vLLM to the table and the chart, by one command.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from conftest import QUESTIONS, SETTINGS, STEPS, Run
from support.chromium import open_tab
from support.processes import still_there
from support.viewing import viewing
from support.waiting import wait_until

from workflow_r1.evaluation.baselines import BASELINES
from workflow_r1.runs.checkpoints import last_checkpoint
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.world.server import RunningServer, SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World

SEED = 1  # the embedded recipe's


def test_the_first_line_says_what_is_real_and_what_is_small(interrupted):
    assert interrupted.startswith("No GPU: the embedded run.")


def test_every_step_is_a_line(interrupted):
    assert "validation at step 0: acc" in interrupted
    assert f"step   1/{STEPS}  acc" in interrupted


def test_ctrl_c_leaves_no_process(embedded_run, interrupted):
    assert "Interrupted: stopping." in interrupted
    assert embedded_run.processes == []


def test_a_second_run_in_the_folder_hears_who_has_it(embedded_run, interrupted):
    assert (
        f"error: {embedded_run.folder} is taken by another run (process {embedded_run.commands[0].pid} on "
        in interrupted
    )


def test_a_killed_launcher_leaves_no_process_and_no_second_trainer(embedded_run, killed, resumed):
    assert still_there(killed) == []


def test_no_server_of_this_machine_is_asked_through_a_proxy(resumed, comparison, proxy):
    hosts = {re.sub(r"^\w+ (https?://)?|[:/].*", "", asked) for asked in proxy.asked}
    assert hosts <= {"169.254.169.254", "metadata.google.internal"}  # Ray asks whether it runs in a cloud


def test_the_same_command_resumes_from_the_last_checkpoint(embedded_run, saved, resumed):
    assert saved >= 1
    assert f"Resuming from step {saved} of" in resumed
    steps = [line.split("/")[0] for line in resumed.splitlines() if line.startswith("step ")]
    assert steps == [f"step   {step}" for step in range(saved + 1, STEPS + 1)]
    assert embedded_run.processes == []
    assert list(embedded_run.metrics) == [0, 1, 2, 3]


def test_the_weights_reach_the_sampler_in_every_step(embedded_run, resumed):
    steps = {step: data for step, data in embedded_run.metrics.items() if step > 0}
    assert list(steps) == [1, 2, 3]
    assert max(data["training/rollout_probs_diff_mean"] for data in steps.values()) < 1e-6


def test_the_policy_is_updated(embedded_run, resumed):
    assert any(data["actor/grad_norm"] > 0 for data in embedded_run.metrics.values() if "actor/grad_norm" in data)


def test_gsspos_and_the_rollouts_metrics_are_logged(embedded_run, resumed):
    data = embedded_run.metrics[STEPS]
    for name in (
        "actor/pg_clipfrac_low",
        "actor/pg_clipfrac_high",
        "actor/ratio_max",
        "actor/subsequences_per_response",
        "actor/ppo_kl",
        "workflow/calls/mean",
        "workflow/ended_by/answered",
        "workflow/operator_seconds/mean",
    ):
        assert name in data, name
    assert data["actor/subsequences_per_response"] > 1


def test_the_metrics_by_turn_are_logged_as_means(embedded_run, resumed):
    data = embedded_run.metrics[STEPS]
    assert data["turn_fraction/1"] == pytest.approx(1 / data["workflow/turns/mean"], rel=0.1)
    assert data["turn_ratio_std/1"] > 0
    assert data["turn_entropy/1"] > 0
    assert data["turn_mismatch/1"] < 1e-6
    assert data["mismatch/eff_sample_size"] == pytest.approx(1, abs=1e-4)
    assert not [name for name in data if "turn_sums" in name]


def test_the_rewards_parts_are_validated_by_data_source(embedded_run, resumed):
    for source in ("world_single", "world_two_hop"):
        assert f"val-core/{source}/acc/mean@1" in embedded_run.metrics[STEPS]
        assert f"val-aux/{source}/f1/mean@1" in embedded_run.metrics[STEPS]


def test_trajectories_are_records_with_rewards(embedded_run, resumed):
    trajectories = embedded_run.trajectories("train", STEPS)
    assert len(trajectories) == 8 * 8
    assert all(t.turns and t.golds and "acc" in t.reward for t in trajectories)
    assert any(call.output for t in trajectories for call in t.calls)
    for trajectory in trajectories:
        spans = [turn.tokens for turn in trajectory.turns]
        assert all(start < end for start, end in spans)
        assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_the_report_shows_before_and_after_and_where_everything_is(embedded_run, resumed):
    assert f"Validation at step 0 → step {STEPS}" in resumed
    assert "Operator calls of the run" in resumed
    assert "Question" in resumed
    assert str(embedded_run.folder / f"global_step_{STEPS}" / "actor") in resumed
    for picture in ("reward_curve.png", "workflow.png"):
        assert (embedded_run.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_a_browser_walks_through_it(embedded_run, resumed, tmp_path):
    name = quote(embedded_run.folder.name)
    with viewing(embedded_run.folder, tmp_path / "cache") as address, open_tab(tmp_path / "chromium") as tab:
        tab.open(f"{address}run?source={name}")
        wait_until(lambda: f"\nval\t{STEPS}\t" in tab.text())  # it has been read
        tab.open(f"{address}run?source={name}")
        assert "Clip fraction" in tab.text()
        for page in ("a[href^='/step']", "a[href^='/group']", "article a", ".graph a"):
            tab.follow(page)
        assert "Turn 1" in tab.text()
        tab.open(f"{address}find?part=train&step={STEPS}")
        assert "64 trajectories" in tab.text()
        tab.open(f"{address}flips?before={name}/val/0&after={name}/val/{STEPS}")
        assert "questions changed" in tab.text()
        tab.open(f"{address}operators?source={name}")
        assert "Completion tokens" in tab.text()
        assert tab.faults == []


def test_the_watch_judges_every_step_and_keeps_the_checkpoint_that_was_validated(embedded_run, resumed):
    for step in range(1, STEPS + 1):
        assert {"watch/malformed", "watch/mismatch", "watch/clipped"} <= embedded_run.metrics[step].keys()
    assert last_checkpoint(embedded_run.folder / "best") == embedded_run.folder / "best" / f"global_step_{STEPS}"
    assert str(embedded_run.folder / "best" / f"global_step_{STEPS}" / "actor") in resumed


def test_a_finished_run_is_reported_without_training_again(embedded_run, resumed):
    assert f"holds a finished run of {STEPS} steps" in embedded_run.start(*SETTINGS).finish(code=0)


@pytest.fixture(scope="module")
def operators() -> Iterator[RunningServer]:
    with running_server(SimulatedEndpoint(SimulatedLLM(World.build(SEED)))) as server:
        yield server


@pytest.fixture(scope="module")
def comparison(embedded_run: Run, resumed: str, operators: RunningServer) -> Any:
    """What the command wrote after a short training run: the baselines, the cold start and the trained policy."""
    folder = embedded_run.folder
    settings = {
        "benchmarks": [str(folder / "data" / "validation.parquet")],
        "prompt": "none",
        "temperature": 1.0,
        "max_response_tokens": 256,
        "limits": {"max_calls": 8, "max_turns": 8, "max_observation_length": 64},
        "runs": {
            **{name: {"baseline": name} for name in BASELINES},
            "cold start": {"policy": str(ensure_tiny_policy(World.build(SEED), cache_dir(), SEED))},
            "trained": {"policy": str(folder)},
        },
    }
    (folder / "runs.yaml").write_text(json.dumps(settings))  # JSON is YAML
    environ = {
        "OPERATOR_BASE_URL": operators.base_url,
        "OPERATOR_API_KEY": "none",
        "OPERATOR_MODEL_NAME": MODEL_NAME,
        "COLUMNS": "160",
    }
    command = [sys.executable, "-m", "workflow_r1.cli", "compare"]
    command += [str(folder / "runs.yaml"), "-o", str(folder / "comparison")]
    done = subprocess.run(
        command, env={**os.environ, **embedded_run.environ, **environ}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in settings["runs"])
    return json.loads((folder / "comparison" / "comparison.json").read_text())


def test_every_run_is_in_the_table_and_the_chart(comparison: Any, embedded_run: Run) -> None:
    table = (embedded_run.folder / "comparison" / "comparison.md").read_text()
    for name in (*BASELINES, "cold start", "trained"):
        assert f"| {name} |" in table
    assert (embedded_run.folder / "comparison" / "comparison.png").stat().st_size > 10_000
    assert comparison["reference"] == "trained"
    assert [found["questions"] for found in comparison["differences"].values()] == [QUESTIONS] * (len(BASELINES) + 1)


def test_the_table_agrees_with_verls_own_validation(comparison: Any, embedded_run: Run) -> None:
    validation = fmean(trajectory.reward["acc"] for trajectory in embedded_run.trajectories("val", STEPS))
    em = figures(comparison, "trained")["reward/acc"]
    # Both are samples at temperature 1, so their difference varies more than either: by a factor of at most √2.
    margin = (em["high"] - em["low"]) / 2
    assert em["low"] - margin <= validation <= em["high"] + margin


@pytest.mark.parametrize("name", ["cold start", "trained"])
def test_a_served_policy_writes_the_turns_it_was_taught(name: str, comparison: Any) -> None:
    means = {figure: estimate["mean"] for figure, estimate in figures(comparison, name).items()}
    assert means["ended_by/answered"] > 0.7
    assert means["calls"] > 0.3
    assert means["policy_tokens"] > 0


def test_the_shards_were_merged_and_nothing_is_left_running(comparison: Any, embedded_run: Run) -> None:
    step = embedded_run.folder / f"global_step_{STEPS}"
    assert (step / "merged" / "model.safetensors").is_file()
    assert not (step / "merged.unfinished").exists()
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(step) in _command_line(process)]


def figures(comparison: Any, name: str) -> Any:
    return next(run["average"]["figures"] for run in comparison["runs"] if run["name"] == name)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
