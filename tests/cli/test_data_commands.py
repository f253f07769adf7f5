"""`prepare` and `validate` as commands: what they print, and how they end."""

import json
import os
import re
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


def system_prompt(folder):
    return pq.read_table(folder / "train.parquet")["prompt"][0].as_py()[0]["content"]


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
    assert result.output == "nq: 40 of 40 rows earn the full reward with their gold answers\n"


def test_a_row_that_cannot_be_won_is_named_and_fails_the_command(tmp_path):
    path = tmp_path / "quiz.jsonl"
    rows = [{"question": "tag?", "answer": "</answer>"}] * 25 + [{"question": "fine?", "answer": "yes"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    result = run("validate", path)
    assert result.exit_code == 1
    assert "quiz: 1 of 26 rows earn the full reward" in result.output
    assert "quiz_0 ('tag?'): it has a gold answer with a protocol tag: '</answer>'" in result.output
    assert "... and 5 more rows" in result.output


def test_the_prompt_describes_the_chosen_pool(tmp_path, questions):
    common = ("prepare", "--source", questions, "--local-dir", tmp_path)
    assert run(*common, "--operators", "Custom, Revise", "--max-calls", "7").exit_code == 0
    prompt = system_prompt(tmp_path)
    assert re.findall(r"<tool>(\w+): (?!input)", prompt) == ["Custom", "Revise"]
    assert "You have 7 operator calls" in prompt
    assert json.loads((tmp_path / "card.json").read_text())["operators"] == ["Custom", "Revise"]


def test_operators_and_templates_of_ones_own_are_used(tmp_path, questions, monkeypatch):
    (tmp_path / "own_ops_of_this_test.py").write_text(
        "from workflow_r1.operators import InputField, OperatorSpec\n"
        "Look = OperatorSpec(name='Look', use_when='never', inputs=(InputField(name='at'),), prompt='{at}')\n"
    )
    (tmp_path / "prompt.jinja").write_text("Use {{ operators[0].name }} at most {{ max_calls }} times.")
    monkeypatch.syspath_prepend(tmp_path)
    result = run(
        *("prepare", "--source", questions, "--local-dir", tmp_path, "--operators", "Look"),
        *("--operator-module", "own_ops_of_this_test", "--prompt", tmp_path / "prompt.jinja"),
    )
    assert result.exit_code == 0, result.output
    assert system_prompt(tmp_path) == "Use Look at most 20 times."


def test_search_is_offered_only_where_it_is_asked_for(tmp_path, questions):
    common = ("prepare", "--source", questions, "--local-dir", tmp_path)
    for options, offered in (((), False), (("--search",), True), (("--search", "--operators", "Custom"), True)):
        assert run(*common, *options).exit_code == 0
        assert ("<tool>Search: [query]</tool>" in system_prompt(tmp_path)) is offered
    assert "<tool>Custom: " in system_prompt(tmp_path)


def test_a_search_of_ones_own_is_an_operator_like_any_other(tmp_path, questions, monkeypatch):
    (tmp_path / "search_of_this_test.py").write_text(
        "from workflow_r1.operators import InputField, OperatorSpec\n"
        "Search = OperatorSpec(name='Search', use_when='lost', inputs=(InputField(name='place'),), prompt='{place}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    common = ("prepare", "--source", questions, "--local-dir", tmp_path, "--operator-module", "search_of_this_test")
    for options in ((), ("--search",)):
        assert run(*common, *options).exit_code == 0
        assert system_prompt(tmp_path).count("<tool>Search: [place]</tool>") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--source", "nowhere.jsonl"), "There is no file, folder or benchmark 'nowhere.jsonl'"),
        (("--operators", "Guess"), "There is no operator named 'Guess'"),
        (("--prompt", "nowhere.jinja"), "The prompt template nowhere.jinja cannot be read"),
        (("--operator-module", "nowhere_ops"), "The operator module 'nowhere_ops' cannot be imported"),
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
