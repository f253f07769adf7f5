"""`prepare` and `validate` as commands: what they print, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from workflow_r1.cli.data import prepare, validate

ROOT = Path(__file__).resolve().parents[2]
app = typer.Typer()
app.command("prepare")(prepare)
app.command("validate")(validate)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "nq_open.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"q {number}", "answer": ["x"]}) for number in range(40)))
    return path


@pytest.mark.slow
def test_the_example_script_runs_as_it_stands(tmp_path, questions):
    script = ROOT / "examples" / "data_preprocess" / "workflow_r1.py"
    command = [sys.executable, str(script), "--source", str(questions), "--local-dir", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "out/train.parquet: 36 rows (36 nq)\nout/test.parquet: 4 rows (4 nq)\n" in done.stdout
    assert pq.read_table(tmp_path / "out" / "train.parquet").num_rows == 36


def test_what_was_prepared_validates(tmp_path, questions):
    result = run("prepare", "--source", questions, "--local-dir", tmp_path / "out")
    assert result.exit_code == 0
    assert "only 36 usable training rows; 10,000 were asked for" in result.output
    result = run("validate", tmp_path / "out")
    assert result.exit_code == 0
    assert result.output == "nq: 40 of 40 rows are won by their gold answers (acc 1, f1 1, sub_em 1, reward 1)\n"


def test_a_reward_of_ones_own_validates_and_one_that_is_not_there_is_one_sentence(tmp_path, questions):
    (tmp_path / "own.py").write_text("def own(trajectory, worth=1): return worth * (trajectory.answer is not None)\n")
    result = run("validate", questions, "--reward", f"{tmp_path / 'own.py'}:own", "--reward-settings", '{"worth": 2}')
    assert (result.exit_code, result.output) == (0, "nq: 40 of 40 rows are won by their gold answers (reward 2)\n")
    result = run("validate", questions, "--reward", f"{tmp_path / 'own.py'}:other")
    assert result.exit_code == 1
    assert "--reward: the reward function" in result.output
    assert "has no other." in result.output


@pytest.mark.parametrize("settings", ['{"worth": ', "[1]", '{"wrth": 2}', "7"])
def test_settings_of_a_reward_that_do_not_fit_are_one_sentence(tmp_path, questions, settings):
    (tmp_path / "own.py").write_text("def own(trajectory, worth=1): return worth\n")
    result = run("validate", questions, "--reward", f"{tmp_path / 'own.py'}:own", "--reward-settings", settings)
    assert result.exit_code == 1
    assert "--reward" in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_row_that_cannot_be_won_is_named_and_fails_the_command(tmp_path):
    path = tmp_path / "quiz.jsonl"
    rows = [{"question": "tag?", "answer": "</answer>"}] * 25 + [{"question": "fine?", "answer": "yes"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    result = run("validate", path)
    assert result.exit_code == 1
    assert "quiz: 1 of 26 rows are won by their gold answers" in result.output
    assert "quiz_0 ('tag?'): it has a gold answer with a protocol tag: '</answer>'" in result.output
    assert "... and 5 more rows" in result.output


def test_a_row_holds_the_question_and_no_prompt(tmp_path, questions):
    assert run("prepare", "--source", questions, "--local-dir", tmp_path).exit_code == 0
    [message] = pq.read_table(tmp_path / "train.parquet")["prompt"][0].as_py()
    assert (message["role"], message["content"][:2]) == ("user", "q ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--source", "nowhere.jsonl"), "There is no file, folder or benchmark 'nowhere.jsonl'"),
        (("--tokenizer", "./nowhere"), "The tokenizer './nowhere' could not be loaded: "),
    ],
)
def test_bad_input_ends_with_one_sentence(tmp_path, questions, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    given = arguments if "--source" in arguments else ("--source", questions, *arguments)
    result = run("prepare", *given)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {reason}")
    assert result.output.count("\n") == 1
    assert not Path("data").exists()


def test_an_unprepared_default_folder_gets_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("validate")
    assert result.exit_code == 1
    assert result.output.startswith("error: There is no data/workflow_r1 yet: make it with 'workflow-r1 prepare'")


def test_help_explains_every_option():
    for command in typer.main.get_command(app).commands.values():
        assert len(command.help) > 40
        assert [option.name for option in command.params if not getattr(option, "help", None)] == []
