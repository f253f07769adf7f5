"""What a person sees of a run: the line of a step, the table, the curve, the example."""

import json

import pytest
from rich.console import Console

from workflow_r1.operators import Budget, OperatorResult
from workflow_r1.runs.progress import MetricsTail, StartPhases, describe, read_metrics, validation_scores
from workflow_r1.runs.report import (
    RunReport,
    before_and_after,
    draw_curve,
    example,
    mean_scores,
    print_report,
    print_trajectory,
)
from workflow_r1.runs.train import last_error
from workflow_r1.services.ledger import RunLedger
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn, write_jsonl

STEP = {
    "actor/pg_loss": 0.1,
    "reward/reward": 0.25,
    "reward/acc": 0.5,
    "reward/spent": -0.125,
    "workflow/calls/mean": 1.25,
    "workflow/malformed": 0.1,
    "actor/pg_clipfrac": 0.031,
    "actor/ppo_kl": 0.002,
    "timing_s/step": 2.5,
    "val-core/single/acc/mean@1": 0.75,
    "val-core/two_hop/acc/mean@1": 0.25,
    "val-aux/single/f1/mean@1": 0.8,
}


def trajectory(source: str, acc: float, calls: int, ended_by: EndedBy = EndedBy.ANSWERED) -> Trajectory:
    turns = [Turn(text="", think="ask", calls=[CallRecord(operator="A", input="in", output="out")])] * calls
    turns.append(Turn(text="", think="done", answer="Paris"))
    reward = {"reward": acc / 2, "acc": acc, "length": 100.0}
    return Trajectory(
        question="capital [x]?",
        turns=turns,
        ended_by=ended_by,
        data_source=source,
        golds=["Paris"],
        reward=reward,
    )


@pytest.fixture
def run(tmp_path):
    """The folder that a run of two validations leaves."""
    for step, acc in ((0, 0.0), (20, 1.0)):
        path = tmp_path / "trajectories" / "val" / f"{step}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, [trajectory("single", acc, 1), trajectory("two_hop", acc, 2), trajectory("two_hop", 0.0, 3)])
    (tmp_path / "global_step_5" / "actor").mkdir(parents=True)
    (tmp_path / "global_step_20" / "actor").mkdir(parents=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    (tmp_path / "metrics-001.jsonl").write_text(
        "".join(json.dumps({"step": step, "data": STEP}) + "\n" for step in (0, 1, 2))
    )
    return tmp_path


def test_a_step_is_one_line_and_a_validation_another():
    step, validation = describe(7, 60, STEP)
    assert step == (
        "step   7/60  acc 0.50  reward 0.25  spent -0.12  calls 1.2  malformed 10%  clipped 3.1%  kl +0.0020  2.5 s"
    )
    assert validation == "validation at step 7: acc single 0.75  two_hop 0.25"


def test_the_first_validation_is_no_step():
    assert list(describe(0, 60, {"val-core/a/acc/mean@1": 1.0})) == ["validation at step 0: acc a 1.00"]


def test_a_reward_without_an_acc_is_itself_the_score():
    data = {"val-core/a/reward/mean@1": -0.5, "val-core/a/reward/std@4": 0.1, "val-aux/a/length/mean@1": 3.0}
    assert list(describe(0, 60, data)) == ["validation at step 0: reward a -0.50"]


def test_lost_rollouts_are_shown_where_there_are_any():
    step, validation = describe(
        7, 60, {**STEP, "workflow/rollouts_lost": 3.0, "workflow/validation_rollouts_lost": 1.0}
    )
    assert "clipped 3.1%  rollouts lost 3  kl" in step
    assert validation.endswith("two_hop 0.25  (1 rollouts lost to exceptions, counted as wrong)")
    assert "lost" not in "".join(describe(7, 60, {**STEP, "workflow/rollouts_lost": 0.0}))


def test_a_validation_that_lost_everything_has_no_score():
    [line] = describe(0, 60, {"workflow/validation_rollouts_lost": 32.0})
    assert line == "validation at step 0: not measured  (32 rollouts lost to exceptions)"


def test_a_data_source_may_hold_slashes_and_markup():
    data = {
        "val-core/org/nq [v2]/acc/mean@1": 0.5,
        "val-core/org/nq [v2]/acc/best@4/mean": 0.9,
        "val-core/acc/acc/mean@8": 1,
    }
    assert validation_scores(data) == {"org/nq [v2]": 0.5, "acc": 1}
    assert list(describe(3, None, data)) == ["validation at step 3: acc acc 1.00  org/nq [v2] 0.50"]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"step": 2, "da',
        b"",
        b"[1, 2]",
        b"null",
        b'{"data": {}}',
        b'{"step": "2", "data": {}}',
        b'{"step": 2, "data": null}',
        b"\x00\xff\xfe",
        b"[" * 100_000,
        b"9" * 5_000,
    ],
)
def test_a_broken_line_of_metrics_is_left_out_and_said_to_be(broken, run, caplog):
    path = run / "metrics-001.jsonl"
    path.write_bytes(path.read_bytes() + broken + b"\n" + b'{"step": 9, "data": {"a": 1}}\n')
    assert list(read_metrics(run)) == [0, 1, 2, 9]
    assert "metrics-001.jsonl: 1 broken line(s) left out, the first is line 4" in caplog.text
    assert [step for step, _ in MetricsTail(path).new_records()] == [0, 1, 2, 9]


def test_what_is_no_number_is_no_metric(tmp_path):
    (tmp_path / "metrics-001.jsonl").write_text('{"step": 1, "data": {"a": "text", "b": null, "c": 0.5, "d": NaN}}\n')
    assert list(read_metrics(tmp_path)[1]) == ["c", "d"]


def test_folders_and_files_beside_those_of_a_run_do_not_matter(run, caplog):
    for name in ("global_step_10-hf", "global_step_", "global_step_999", "global_step_5 (copy)", "metrics"):
        (run / name).mkdir()
    (run / "global_step_30").write_text("a file")
    validations = run / "trajectories" / "val"
    (validations / "20 copy.jsonl").write_text("")
    (validations / "best.jsonl").write_text("")
    with (validations / "20.jsonl").open("a") as file:
        file.write('{"question": "torn')
    (run / "ledger.json").write_text("{torn")
    console = Console(record=True, width=200)
    print_report(console, RunReport(run, trajectory_dir=run / "trajectories", ledger=run / "ledger.json"))
    shown = console.export_text()
    assert f"checkpoint    {run / 'global_step_20' / 'actor'}" in shown
    assert "Validation at step 0 → step 20" in shown
    assert "ledger.json cannot be read" in shown
    assert "20.jsonl: 1 broken line(s) left out, the first is line 4" in caplog.text


def test_what_the_watch_warned_of_and_the_best_checkpoint_are_in_the_report(run):
    warned = {"step": 2, "text": "the [red]reward falls"}
    (run / "watch.jsonl").write_text(json.dumps(warned) + "\n")
    (run / "best" / "global_step_5" / "actor").mkdir(parents=True)
    (run / "best" / "latest_checkpointed_iteration.txt").write_text("5")
    console = Console(record=True, width=200)
    print_report(console, RunReport(run, trajectory_dir=None, ledger=None))
    shown = console.export_text()
    assert "warning at step 2: the [red]reward falls\n" in shown
    assert f"best          {run / 'best' / 'global_step_5' / 'actor'}\n" in shown
    assert f"checkpoint    {run / 'global_step_20' / 'actor'}\n" in shown


def test_what_was_filtered_and_masked_is_shown_where_there_is_any():
    (step,) = describe(7, None, {"actor/pg_loss": 0.1, "workflow/groups_filtered": 3, "workflow/masked": 0.25})
    assert "groups filtered 3  masked 25%" in step
    (step,) = describe(7, None, {"actor/pg_loss": 0.1, "workflow/groups_filtered": 0, "workflow/masked": 0.0})
    assert not any(word in step for word in ("filtered", "masked"))


def test_what_the_endpoint_did_not_serve_is_said():
    step, validation = describe(
        7,
        None,
        {
            **STEP,
            "workflow/unscored": 0.5,
            "workflow/validation_unscored": 0.25,
        },
    )
    assert step.startswith("step   7  acc")
    assert "not served 50%" in step
    assert validation.endswith("(25% not served, counted as 0)")


def test_the_tail_reads_each_complete_line_once(tmp_path):
    path = tmp_path / "m.jsonl"
    tail = MetricsTail(path)
    assert list(tail.new_records()) == []
    path.write_text('{"step": 1, "data": {"a": 1}}\n{"step": 2, "da')
    assert list(tail.new_records()) == [(1, {"a": 1})]
    path.write_text('{"step": 1, "data": {"a": 1}}\n{"step": 2, "data": {"a": 2}}\n')
    assert list(tail.new_records()) == [(2, {"a": 2})]


def test_a_resumed_run_overrides_the_steps_that_it_repeats(run):
    (run / "metrics-002.jsonl").write_text(json.dumps({"step": 2, "data": {"reward/reward": 0.9}}) + "\n")
    metrics = read_metrics(run)
    assert list(metrics) == [0, 1, 2]
    assert metrics[2]["reward/reward"] == 0.9
    assert metrics[1]["reward/reward"] == 0.25


def test_means_are_by_data_source_and_over_all(run):
    scores = mean_scores([trajectory("single", 1.0, 1), trajectory("two_hop", 0.0, 3)])
    assert list(scores) == ["single", "two_hop", "all"]
    assert scores["all"] == {"acc": 0.5, "reward": 0.25, "length": 100.0, "calls": 2.0, "malformed": 0.0}
    assert next(iter(scores["all"])) == "acc"


def test_what_the_endpoint_did_not_serve_lowers_no_mean():
    lost = trajectory("single", 0.0, 0, ended_by=EndedBy.OPERATOR_FAILURE)
    assert mean_scores([trajectory("single", 1.0, 1), lost])["single"]["acc"] == 1.0


def test_the_table_sets_the_last_validation_beside_the_first(run):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(before_and_after(run / "trajectories"))
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in capture.get().splitlines()]
    assert ["single", "0.00 → 1.00", "0.00 → 0.50", "100.00 → 100.00", "1.00 → 1.00", "0.00 → 0.00"] in rows
    assert ["two_hop", "0.00 → 0.50", "0.00 → 0.25", "100.00 → 100.00", "2.50 → 2.50", "0.00 → 0.00"] in rows
    assert ["all", "0.00 → 0.67", "0.00 → 0.33", "100.00 → 100.00", "2.00 → 2.00", "0.00 → 0.00"] in rows


def test_a_part_that_one_validation_did_not_have_is_no_zero(run):
    for step, reward in ((0, {"reward": 0.5}), (20, {"reward": 0.5, "own": 3.0})):
        path = run / "trajectories" / "val" / f"{step}.jsonl"
        rewarded = trajectory("single", 1.0, 1).model_copy(update={"reward": reward})
        path.unlink()
        write_jsonl(path, [rewarded])
    console = Console(width=120)
    with console.capture() as capture:
        console.print(before_and_after(run / "trajectories"))
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in capture.get().splitlines()]
    assert ["single", "0.50 → 0.50", "-", "1.00 → 1.00", "0.00 → 0.00"] in rows


def test_one_validation_makes_no_table(run):
    (run / "trajectories" / "val" / "20.jsonl").unlink()
    assert before_and_after(run / "trajectories") is None


def test_the_example_is_the_right_answer_with_the_most_calls(run):
    chosen = example(run / "trajectories")
    assert (chosen.reward["acc"], len(chosen.calls)) == (1.0, 2)


def test_the_curve_is_a_picture(run):
    draw_curve(read_metrics(run), run / "curve.png")
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_says_where_everything_is_and_what_the_operators_took(run, capsys):
    ledger = RunLedger(run / "operators" / "ledger.json", Budget())
    ledger.add(OperatorResult("Review", "fine", requests=1, prompt_tokens=1_200))
    ledger.save()
    print_report(Console(width=200), RunReport(run, run / "trajectories", run / "operators" / "ledger.json"))
    output = capsys.readouterr().out
    assert any(line.split()[:2] == ["Review", "1"] and "1,200" in line for line in output.splitlines())
    assert str(run / "global_step_20" / "actor") in output
    assert str(run / "reward_curve.png") in output
    assert "capital [x]?" in output


def test_a_run_that_keeps_no_trajectories_has_a_report_too(run, capsys):
    print_report(Console(width=200), RunReport(run, trajectory_dir=None, ledger=None))
    assert "trajectories  not kept" in capsys.readouterr().out


def test_the_phase_is_that_of_this_start(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("TaskRunnerV1 vLLMHttpServer Creating file logger\n")
    start = log.stat().st_size
    assert StartPhases(log, 0).newest() == "first validation: vLLM compiles its sampler"
    phases = StartPhases(log, start)
    assert phases.newest() == "starting"
    with log.open("a") as file:
        file.write("ray init ")
        file.flush()
        assert phases.newest() == "starting"
        file.write("kwargs\n")
    assert phases.newest() == "starting Ray"
    with log.open("a") as file:
        file.write("vLLMHttpServer\nray init kwargs\n")
    assert phases.newest() == "starting vLLM"


def test_a_trajectory_without_an_answer_says_why(capsys):
    print_trajectory(Console(width=100), Trajectory(question="q", ended_by=EndedBy.TURN_LIMIT))
    assert "no answer: turn limit" in capsys.readouterr().out


def test_a_trajectory_shows_what_its_turns_earned(capsys):
    turns = [Turn(text="", error="broken", reward=-0.5), Turn(text="", reward=0.0), Turn(text="", answer="x")]
    print_trajectory(Console(width=100), Trajectory(question="q", turns=turns, ended_by=EndedBy.ANSWERED))
    assert [line.strip() for line in capsys.readouterr().out.splitlines() if "earned" in line] == ["earned -0.50"]


def test_the_last_exception_of_a_log_is_its_cause(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("ValueError: old run\n")
    start = log.stat().st_size
    with log.open("a") as file:
        file.write("Traceback\n  raise\nray.exceptions.RayTaskError(KeyError): \x1b[36mray::x\n")
        file.write("ValueError: the cause\nnoise\n")
    assert last_error(log, start) == "ValueError: the cause"
    assert "without saying why" in last_error(log, log.stat().st_size)
    assert "was killed, as the system does when memory runs out" in last_error(log, log.stat().st_size, 137)
