"""`train.sh` without a GPU: interrupted, resumed, finished, and what it leaves."""

from itertools import pairwise

import pytest
from conftest import Run, small

SETTINGS = [*small(4), "trainer.save_freq=1", "trainer.test_freq=4"]


@pytest.fixture(scope="module")
def interrupted(run: Run) -> str:
    """What the terminal showed of a run that got Ctrl-C after its second step, and again while it was stopping."""
    command, shown = run.start(*SETTINGS), []
    for line in command.lines():
        shown.append(line)
        if line.startswith(("step   2/", "Interrupted")):
            assert len(command.processes) > 8  # the launcher, the trainer, Ray's own, its workers, vLLM's
            command.interrupt()
    return "".join(shown) + command.finish(code=130)


@pytest.fixture(scope="module")
def saved(run: Run, interrupted: str) -> int:
    """The step of the checkpoint that it left."""
    return int((run.folder / "latest_checkpointed_iteration.txt").read_text())


@pytest.fixture(scope="module")
def resumed(run: Run, saved: int) -> str:
    """What the same command showed when it was given again."""
    return run.start(*SETTINGS).finish(code=0)


def test_the_first_line_says_what_is_real_and_what_is_small(interrupted):
    assert interrupted.startswith("No GPU: the embedded run.")


def test_every_step_is_a_line(interrupted):
    assert "validation at step 0: EM" in interrupted
    assert "step   1/4  reward" in interrupted


def test_ctrl_c_leaves_no_process(run, interrupted):
    assert "Interrupted: stopping." in interrupted
    assert run.processes == []


def test_the_same_command_resumes_from_the_last_checkpoint(run, saved, resumed):
    assert saved >= 1
    assert f"Resuming from step {saved} of" in resumed
    steps = [line.split("/")[0] for line in resumed.splitlines() if line.startswith("step ")]
    assert steps == [f"step   {step}" for step in range(saved + 1, 5)]
    assert run.processes == []
    assert list(run.metrics) == [0, 1, 2, 3, 4]


def test_the_weights_reach_the_sampler_in_every_step(run, resumed):
    steps = {step: data for step, data in run.metrics.items() if step > 0}
    assert list(steps) == [1, 2, 3, 4]
    assert max(data["training/rollout_probs_diff_mean"] for data in steps.values()) < 1e-6


def test_the_policy_is_updated(run, resumed):
    assert any(data["actor/grad_norm"] > 0 for data in run.metrics.values() if "actor/grad_norm" in data)


def test_gsspos_and_the_rollouts_metrics_are_logged(run, resumed):
    data = run.metrics[4]
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


def test_the_rewards_parts_are_validated_by_data_source(run, resumed):
    for source in ("world_single", "world_two_hop"):
        assert f"val-core/{source}/acc/mean@1" in run.metrics[4]
        assert f"val-aux/{source}/malformed/mean@1" in run.metrics[4]


def test_trajectories_are_records_with_rewards(run, resumed):
    trajectories = run.trajectories("train", 4)
    assert len(trajectories) == 8 * 8
    assert all(t.turns and t.golds and "acc" in t.reward for t in trajectories)
    assert any(call.output for t in trajectories for call in t.calls)
    for trajectory in trajectories:
        spans = [turn.tokens for turn in trajectory.turns]
        assert all(start < end for start, end in spans)
        assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_the_report_shows_before_and_after_and_where_everything_is(run, resumed):
    assert "Validation at step 0 → step 4" in resumed
    assert "Operator calls of the run" in resumed
    assert "Question" in resumed
    assert str(run.folder / "global_step_4" / "actor") in resumed
    for picture in ("reward_curve.png", "workflow.png"):
        assert (run.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_is_reported_without_training_again(run, resumed):
    assert "holds a finished run of 4 steps" in run.start(*SETTINGS).finish(code=0)
