"""Real NQ and HotpotQA questions: prepared, validated, then one GSsPO step taken on them through verl and vLLM.

The tiny policy cannot read them and the simulated operators do not know them; what is shown is that the pipeline takes
them. The endpoint is one that the user pays for: with a key that must not turn up anywhere, and a budget that ends the
run after the step that spends it. The settings are the reference recipe's where they differ from the embedded ones:
a loss with a reference policy, packed sequences, gradient checkpointing; and several files, a tracker of verl's, and
old log-probs from the rollout.
"""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Run

from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World

SOURCE = ROOT.parent / "shared" / "data" / "nq_hotpotqa"
COLUMNS = ["data_source", "agent_name", "prompt", "ability", "reward_model", "extra_info"]
KEY = "sk-this-key-must-not-leak-4711"


def workflow_r1(*arguments: object) -> str:
    command = [sys.executable, "-m", "workflow_r1.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def prepare(folder: Path) -> Path:
    workflow_r1("prepare", "--source", SOURCE, "--local-dir", folder, "--num-train", 64, "--num-test", 16)
    return folder


@pytest.fixture(scope="module")
def prepared(run: Run) -> Path:
    if not SOURCE.is_dir():
        pytest.skip(f"needs the NQ and HotpotQA sample in {SOURCE}")
    return prepare(run.folder / "prepared")


@pytest.fixture(scope="module")
def stopped(run: Run, prepared: Path) -> str:
    """What the terminal showed of a run of two steps whose budget is spent in the first."""
    endpoint = SimulatedEndpoint(SimulatedLLM(World.build(1)), api_key=KEY)
    with running_server(endpoint) as server:
        command = run.start(
            f"data.train_files=[{prepared / 'train.parquet'},{prepared / 'test.parquet'}]",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "algorithm.rollout_correction.bypass_mode=true",
            "actor_rollout_ref.model.use_remove_padding=true",
            "actor_rollout_ref.model.enable_gradient_checkpointing=true",
            "trainer.logger=tensorboard",
            f"data.val_files={prepared / 'test.parquet'}",
            "data.max_prompt_length=3072",
            "data.train_batch_size=8",
            "actor_rollout_ref.actor.ppo_mini_batch_size=8",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
            "actor_rollout_ref.rollout.n=4",
            "trainer.total_training_steps=2",
            "workflow_r1.limits.max_malformed_turns=1",
            "workflow_r1.prompt=default",
            "workflow_r1.budget.max_calls=1",
            f"workflow_r1.operators.base_url={server.base_url}",
            f"workflow_r1.operators.model={MODEL_NAME}",
            f"workflow_r1.operators.api_key={KEY}",
        )
        return command.finish(code=1)


def test_prepared_questions_have_verls_columns_and_the_rows_asked_for(prepared: Path) -> None:
    for name, rows in (("train", 64), ("test", 16)):
        table = pq.read_table(prepared / f"{name}.parquet")
        assert (table.num_rows, table.column_names) == (rows, COLUMNS)
        assert set(table["data_source"].to_pylist()) == {"nq", "hotpotqa"}


def test_preparing_again_gives_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    again = prepare(tmp_path)
    for name in ("train.parquet", "test.parquet"):
        assert (again / name).read_bytes() == (prepared / name).read_bytes()


def test_every_prepared_row_can_be_won(prepared: Path) -> None:
    lines = workflow_r1("validate", prepared).splitlines()
    assert [line.split(" rows ")[0] for line in lines] == ["hotpotqa: 40 of 40", "nq: 40 of 40"]


def test_one_step_is_taken_on_real_questions(run: Run, stopped: str) -> None:
    assert "step   1/2" in stopped
    assert run.metrics[1]["training/rollout_probs_diff_mean"] < 1e-6
    assert run.metrics[1]["actor/grad_norm"] >= 0  # zero where the small policy's rewards are all the same


def test_the_recipes_own_loss_is_rehearsed_without_a_gpu(run: Run, stopped: str) -> None:
    # Of one update, before which the policy is its own reference.
    assert run.metrics[1]["actor/kl_loss"] == pytest.approx(0, abs=1e-6)
    assert run.metrics[1]["timing_s/ref"] > 0


def test_with_the_rollouts_log_probs_as_the_old_ones_the_mismatch_is_still_measured(run: Run, stopped: str) -> None:
    measured = ("training/rollout_probs_diff_mean", "mismatch/k3", "turn_entropy/1", "actor/entropy")
    assert [name for name in measured if name not in run.metrics[1]] == []
    # One update, before which the policy is the sampler.
    assert run.metrics[1]["actor/ratio_std"] < 1e-4
    assert run.metrics[1]["timing_s/old_log_prob"] < run.metrics[1]["timing_s/ref"]


def test_a_tracker_writes_into_the_runs_folder(run: Run, stopped: str) -> None:
    [events] = (run.folder / "tensorboard").iterdir()
    assert b"reward/reward" in events.read_bytes()
    assert not (ROOT / "tensorboard_log").exists()


def test_they_are_rolled_out_and_scored_by_data_source(run: Run, stopped: str) -> None:
    trajectories = run.trajectories("train", 1)
    assert len(trajectories) == 8 * 4
    assert all(t.golds and t.turns and "acc" in t.reward for t in trajectories)
    sources = {key.split("/")[1] for key in run.metrics[0] if key.startswith("val-core/")}
    assert sources == {"nq", "hotpotqa"}


def test_a_spent_budget_ends_the_run_at_a_checkpoint(run: Run, stopped: str) -> None:
    assert "Stopped, with step 1 saved: The run has used up its budget" in stopped
    assert "raise workflow_r1.budget.max_calls (1) to go on." in stopped
    assert (run.folder / "global_step_1" / "actor").is_dir()
    assert "step   2/2" not in stopped
    assert run.processes == []


def test_the_key_is_in_no_file_of_the_run_and_not_on_the_terminal(run: Run, stopped: str) -> None:
    assert KEY not in stopped
    holders = [path for path in run.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holders == []
