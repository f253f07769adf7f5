"""`workflow-r1 view --text`: a step, a group and a trajectory in the terminal, whatever they hold."""

from pathlib import Path

import pytest
from support.recorded_run import add_step, make_run, trajectory, turn
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.trajectory import write_jsonl


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return make_run(tmp_path / "run")


def view(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["view", *map(str, arguments), "--text"])
    assert done.exit_code == code, done.output
    return done.output


def test_the_questions_of_the_last_step(run: Path):
    printed = view(run)
    assert "run: train, step 3" in printed
    assert [line.split("│")[1:7] for line in printed.splitlines() if "Dostex" in line] == [
        [" where is Dostex based ? ", " world  ", "        4 ", "  0.75 ", " 0.00 ", " 1.00 "]
    ]


def test_the_rollouts_of_a_question_and_where_they_part(run: Path):
    printed = view(run, "--step", 1, "--question", "brastune")
    assert "all share 1 turn(s)" in printed
    assert "line    1  reward  +1.00  AnswerGenerate ┃ answer: Martis" in printed
    assert "line    2  reward  +0.00  AnswerGenerate ┃ answer: Nobody" in printed


def test_a_trajectory(run: Path):
    assert "answer   Nobody" in view(run, "--step", 1, "--line", 2)


def test_nothing_that_a_terminal_acts_on_is_printed(run: Path):
    hostile = "\x1b]0;title\x07[bold]\u202ex"
    path = add_step(run, 4)
    write_jsonl(path, [trajectory(hostile, True, turn(hostile, answer=hostile))])
    for more in ([], ["--question", "[bold]"], ["--line", "9"]):
        printed = view(run, *more)
        assert "[bold]" in printed
        assert not {"\x1b]0", "\x07", "\u202e"} & {printed[i : i + n] for n in (1, 3) for i in range(len(printed))}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "There is no nowhere: name a run's folder"),
        (["{run}", "--step", "9"], "is such a file of trajectories of step 9"),
        (["{run}", "--line", "99"], "There is no line 99"),
        (["{run}", "--question", "xyz"], "No question holds 'xyz'"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(run: Path, arguments: list[str], sentence: str):
    assert sentence in " ".join(view(*(one.format(run=run) for one in arguments), code=1).split())
