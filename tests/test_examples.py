"""What is in `examples/` runs, as its own lines say. `my_verl_agent` is run by `tests/e2e/test_tool_agent.py`."""

import asyncio
import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workflow_r1.cli.operators import operators_app
from workflow_r1.config import WorkflowConfig
from workflow_r1.runs.recipe import EMBEDDED, compose_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as PYTHONPATH=examples does


def lines_of(example: str, command: str) -> list[str]:
    """The arguments of the one line in an example that runs `command`."""
    [line] = re.findall(rf"^    {command} (.*)$", (EXAMPLES / example).read_text(encoding="utf-8"), re.MULTILINE)
    return [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line)]


async def test_the_operator_answers_with_the_command_that_it_names(operators, world):
    arguments = lines_of("my_operator.py", "workflow-r1 operators")
    result = await asyncio.to_thread(CliRunner().invoke, operators_app, arguments)
    assert result.exit_code == 0, result.output
    assert world.kind_of[result.stdout.strip().lower()] == "person"  # the simulated model is not always right


def test_the_operator_is_on_offer_in_a_run_with_its_one_line_of_configuration():
    config = compose_recipe(EMBEDDED, lines_of("my_operator.py", "bash train.sh"))
    environ = {"OPERATOR_BASE_URL": "http://127.0.0.1:9/v1", "OPERATOR_API_KEY": "k", "OPERATOR_MODEL_NAME": "m"}
    names = [spec.name for spec in WorkflowConfig.parse(config).operator_pool(environ).specs]
    assert names[-1] == "RecallAnswer"
    assert "AnswerGenerate" in names


@pytest.mark.parametrize(
    ("response", "turns", "reward"),
    [("It was Zemar.", 2, 0.96), ("It was Glovis.", 2, -0.04), ("Zemar? " + "no " * 50, 4, -0.08)],
)
def test_the_agents_reward_is_its_last_sentences_answer_less_its_turns(response, turns, reward):
    score = runpy.run_path(str(EXAMPLES / "my_verl_agent" / "reward.py"))["compute_score"]
    assert score("library", response, "Zemar", {"num_turns": turns}) == pytest.approx(reward)


def test_the_readme_lists_every_example():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    there = {
        path.name for path in EXAMPLES.iterdir() if not path.name.startswith(("_", ".")) and path.name != "README.md"
    }
    assert [name for name in there if name not in listed] == []
