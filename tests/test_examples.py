"""What is in `examples/` runs, as its own lines say. `my_verl_agent` is run by `tests/e2e/test_tool_agent.py`."""

import asyncio
import re
import runpy
from pathlib import Path

import pytest
from support.faulty_endpoint import result
from typer.testing import CliRunner

from workflow_r1.cli.operators import operators_app
from workflow_r1.config import WorkflowConfig
from workflow_r1.operators.judge import RewardOperators
from workflow_r1.reward import Reward, RewardSettings
from workflow_r1.runs.recipe import EMBEDDED, compose_recipe, with_our_settings
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn

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
    config = compose_recipe(EMBEDDED, with_our_settings(lines_of("my_operator.py", "bash train.sh")))
    environ = {"OPERATOR_BASE_URL": "http://127.0.0.1:9/v1", "OPERATOR_API_KEY": "k", "OPERATOR_MODEL_NAME": "m"}
    names = [spec.name for spec in WorkflowConfig.parse(config).operator_pool(environ).specs]
    assert names[-1] == "RecallAnswer"
    assert "AnswerGenerate" in names


def answered(answer: str | None, calls: int = 0) -> Trajectory:
    turns = [Turn(text="t", calls=[CallRecord(operator="A", input="i", output="o")])] * calls
    return Trajectory(question="q", turns=[*turns, Turn(text="t", answer=answer)], ended_by=EndedBy.ANSWERED)


@pytest.mark.parametrize(
    ("trajectory", "rewards"),
    [
        (answered("Paris", calls=3), {"acc": 1.0, "spent": 0.3, "reward": 0.7}),
        (answered("Rome", calls=1), {"acc": 0.0, "spent": 0.1, "reward": -0.1}),
        (answered(None, calls=2), {"acc": 0.0, "spent": 0.2, "reward": -1.0}),
    ],
)
async def test_the_reward_of_a_short_workflow_with_its_line_of_configuration(trajectory, rewards, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    config = compose_recipe(EMBEDDED, with_our_settings(lines_of("my_reward.py", "bash train.sh")))
    await Reward(WorkflowConfig.parse(config).reward).score(trajectory, ["Paris"], {})
    assert trajectory.reward == pytest.approx(rewards)


@pytest.mark.parametrize(
    ("answer", "verdict", "reward", "calls"),
    [
        ("Paris", "unasked", 1.0, 0),
        (None, "unasked", 0.0, 0),
        ("Lutetia", "Correct", 0.5, 1),
        ("Rome", "Wrong", 0.0, 1),
    ],
)
async def test_the_reward_of_a_second_opinion_asks_an_operator(
    answer, verdict, reward, calls, endpoint, make_pool, monkeypatch
):
    monkeypatch.chdir(EXAMPLES.parent)
    [function] = [word for word in lines_of("my_reward.py", "workflow-r1 eval") if word.endswith(":second_opinion")]
    endpoint.behaviour = result(verdict)
    pool, trajectory = make_pool(), answered(answer)
    await Reward(RewardSettings(function=function)).score(trajectory, ["Paris"], {}, RewardOperators(pool))
    assert trajectory.reward == {"reward": reward}
    assert sum(usage.calls for usage in pool.usage.operators.values()) == calls


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
