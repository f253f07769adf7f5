"""`train.sh` without a GPU: interrupted, resumed, finished, and what it leaves."""

from itertools import pairwise

from conftest import SETTINGS, STEPS


def test_the_first_line_says_what_is_real_and_what_is_small(interrupted):
    assert interrupted.startswith("No GPU: the embedded run.")


def test_every_step_is_a_line(interrupted):
    assert "validation at step 0: EM" in interrupted
    assert f"step   1/{STEPS}  reward" in interrupted


def test_ctrl_c_leaves_no_process(embedded_run, interrupted):
    assert "Interrupted: stopping." in interrupted
    assert embedded_run.processes == []


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


def test_the_rewards_parts_are_validated_by_data_source(embedded_run, resumed):
    for source in ("world_single", "world_two_hop"):
        assert f"val-core/{source}/acc/mean@1" in embedded_run.metrics[STEPS]
        assert f"val-aux/{source}/malformed/mean@1" in embedded_run.metrics[STEPS]


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


def test_a_finished_run_is_reported_without_training_again(embedded_run, resumed):
    assert f"holds a finished run of {STEPS} steps" in embedded_run.start(*SETTINGS).finish(code=0)
