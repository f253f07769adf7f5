"""What a run's watch leaves in the run's folder, and when it asks for a stop."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from workflow_r1.runs.progress import follow
from workflow_r1.runs.run_watch import WATCH_FILE, RunWatch, forget_warnings, read_warnings
from workflow_r1.system.terminal import TextConsole
from workflow_r1.watch import WatchSettings

MALFORMED = {"workflow/malformed": 0.75}


def shown(folder: Path) -> list[str]:
    return [str(warned) for warned in read_warnings(folder)]


def test_a_warning_is_a_line_of_the_file_and_a_metric(tmp_path):
    watch = RunWatch(WatchSettings(), tmp_path, [])
    fine, wrong = {"workflow/malformed": 0.0}, dict(MALFORMED)
    assert watch.judge(1, fine) is None
    assert fine == {"workflow/malformed": 0.0, "watch/malformed": 0.0}
    assert shown(tmp_path) == []
    for step in (2, 3, 4):
        assert watch.judge(step, wrong) is None
    assert wrong["watch/malformed"] == 1.0
    [line] = shown(tmp_path)
    assert line.startswith("warning at step 4: many trajectories break the format: workflow/malformed is 0.562 over")


def test_only_a_named_condition_stops(tmp_path):
    both = {**MALFORMED, "workflow/unscored": 0.5}
    watch = RunWatch(WatchSettings(stop_on=("unserved",)), tmp_path, [])
    assert watch.judge(1, dict(MALFORMED)) is None
    reason = watch.judge(2, both)
    assert reason.startswith("At step 2 the endpoints do not serve many trajectories: workflow/unscored is 0.5 over")
    assert reason.endswith(
        "As workflow_r1.watch.stop_on=unserved asks, the run has stopped and this step is not saved: change what led "
        "to it, or take the condition out of there."
    )
    assert [warned.step for warned in read_warnings(tmp_path)] == [1, 2]


def test_a_condition_that_holds_stops_though_it_was_warned_of_before(tmp_path):
    watch = RunWatch(WatchSettings(stop_on=("malformed",)), tmp_path, [MALFORMED])
    assert watch.judge(2, dict(MALFORMED)) is not None
    assert shown(tmp_path) == []


def test_a_start_forgets_the_warnings_of_the_steps_that_it_repeats(tmp_path):
    forget_warnings(tmp_path, after=0)
    watch = RunWatch(WatchSettings(), tmp_path, [])
    for step in (3, 4, 5):
        watch.warn(step, "text")
    forget_warnings(tmp_path, after=4)
    assert [warned.step for warned in read_warnings(tmp_path)] == [3, 4]
    with (tmp_path / WATCH_FILE).open("a") as file:
        file.write('{"step": 9, "te')
    assert [warned.step for warned in read_warnings(tmp_path)] == [3, 4]


@pytest.mark.parametrize("console", [Console, TextConsole])
def test_progress_shows_what_is_new(tmp_path, console):
    watch, output = RunWatch(WatchSettings(), tmp_path, []), io.StringIO()
    watch.warn(1, "shown by the start before")

    def running() -> bool:
        watch.warn(2, "[red]the reward\ud800 falls")
        return False

    files = tmp_path / "metrics.jsonl", tmp_path / "train.log"
    follow(console(file=output, width=100), *files, 0, tmp_path / WATCH_FILE, None, running)
    assert output.getvalue() == "warning at step 2: [red]the reward\ufffd falls\n"
