"""The commands as a user meets them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from pydantic import BaseModel
from support.hostile_replies import HOSTILE, obeyed
from typer.testing import CliRunner, Result

from workflow_r1.cli.evaluation import ask, compare, eval_
from workflow_r1.cli.options import takes_settings
from workflow_r1.evaluation.config import PolicySettings, RunSettings
from workflow_r1.operators import PoolSettings
from workflow_r1.rollout import RolloutLimits
from workflow_r1.world.server import RunningServer
from workflow_r1.world.world import World

app = typer.Typer()
app.command("eval")(eval_)
app.command()(compare)
app.command()(ask)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The paths of its settings, and of those of models in it."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{path}{name}.")
        else:
            yield path + name


@pytest.mark.parametrize("settings", [PolicySettings, RunSettings])
def test_every_setting_has_a_flag_and_what_is_not_given_is_left_to_the_settings(settings: type[BaseModel]) -> None:
    """A new field of a model is a flag at once."""
    given: list[dict] = []
    small = typer.Typer(add_completion=False)
    small.command()(takes_settings(settings)(lambda values: given.append(values)))
    command = typer.main.get_command(small)
    assert len([parameter for parameter in command.params if parameter.name != "help"]) == len(list(fields(settings)))
    required = ["-b", "nq", "--baseline", "cot"] if settings is RunSettings else []
    assert CliRunner().invoke(small, required).exit_code == 0
    assert given == [{"benchmarks": ["nq"], "baseline": "cot"} if required else {}]


def test_what_a_flag_says_reaches_its_setting() -> None:
    given: list[dict] = []
    small = typer.Typer(add_completion=False)
    small.command()(takes_settings(RunSettings)(lambda values: given.append(values)))
    arguments = ["-b", "nq", "--benchmark", "mine.jsonl", "--baseline", "cot", "--max-calls", "3", "--keep-failed"]
    arguments += ["--operators", "Review, Revise", "--operator-module", "a", "--operator-module", "b", "--search"]
    arguments += ["--operator-settings", '{"prompt_price": 0.5}', "--serve-arguments", "--seed 2 --name 'a b'"]
    arguments += ["--request", '{"max_tokens": null}', "--top-p", "0.5", "--truncate-side", "left"]
    assert CliRunner().invoke(small, arguments).exit_code == 0
    settings = RunSettings.model_validate(given[0])
    assert settings.benchmarks == ("nq", "mine.jsonl")
    assert settings.limits == RolloutLimits(max_calls=3, keep_failed=True, truncate_side="left")
    assert settings.pool == PoolSettings(names=("Review", "Revise"), modules=("a", "b"), search=True)
    assert settings.operators == {"prompt_price": 0.5}
    assert settings.serve_arguments == ("--seed", "2", "--name", "a b")
    assert (settings.request, settings.top_p) == ({"max_tokens": None}, 0.5)


@pytest.mark.parametrize("command", ["eval", "compare", "ask"])
def test_help_says_what_every_flag_is_for(command: str) -> None:
    for parameter in typer.main.get_command(app).commands[command].params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None), parameter.name
    result = run(command, "--help")
    assert result.exit_code == 0
    for parameter in typer.main.get_command(app).commands[command].params:  # type: ignore[attr-defined]
        assert parameter.opts[0] in result.output or parameter.name.upper() in result.output


def test_eval_prints_a_table_and_says_where_the_results_are(
    operators: RunningServer, policy: RunningServer, questions: Path, tmp_path: Path
) -> None:
    result = run(
        *("eval", "--policy", policy.base_url, "--prompt", "none", "-b", questions, "--limit", 6),
        *("-o", tmp_path / "out", "--policy-prompt-price", 1, "--policy-completion-price", 2),
    )
    assert result.exit_code == 0, result.output
    assert "world_two_hop" in result.output
    assert str(tmp_path / "out") in result.output.replace("\n", "")
    assert json.loads((tmp_path / "out/summary.json").read_text())["average"]["figures"]["cost"]["mean"] > 0


def test_eval_says_which_questions_it_leaves_out(
    operators: RunningServer, policy: RunningServer, questions: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(questions).to_pylist()[:2]
    rows[1]["reward_model"]["ground_truth"]["target"] = ["!!!"]  # a band
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "two.parquet")
    arguments = ("eval", "--policy", policy.base_url, "--prompt", "none", "-b", tmp_path / "two.parquet")
    result = run(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "dropped from test: 1 rows, no gold answer but punctuation and articles" in said
    assert "such as '!!!'" in said


def test_eval_exits_with_1_where_a_question_could_not_be_served(
    operators: RunningServer, policy: RunningServer, questions: Path, tmp_path: Path
) -> None:
    policy.endpoint.behaviour = lambda query, world, rng: iter(())  # the server breaks at every question
    policy.endpoint.fail = lambda body: None if body.get("max_tokens") == 1 else _gone()
    arguments = ("eval", "--policy", policy.base_url, "--prompt", "none", "-b", questions, "-o", tmp_path / "out")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "24 question(s) could not be served" in result.output


def _gone() -> object:
    from scripted_endpoint import error

    return error(500, "gone")


def test_compare_prints_the_runs_side_by_side(operators: RunningServer, questions: Path, tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text(
        f"benchmarks: [{questions}]\nruns: {{direct: {{baseline: direct}}, cot: {{baseline: cot}}}}"
    )
    result = run("compare", tmp_path / "runs.yaml", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "acc less that of cot" in result.output
    assert (tmp_path / "out/comparison.md").read_text().count("| direct |") == 3


def test_ask_prints_one_json_object_for_programs(operators: RunningServer, policy: RunningServer, world: World) -> None:
    question = next(question for question in world.questions if question.query.hops == 1)
    result = run("ask", question.text, "--policy", policy.base_url, "--prompt", "none", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["question"] == question.text
    assert content["ended_by"] == "answered"
    assert content["answer"] == content["turns"][-1]["answer"]
    assert content["operator_completion_tokens"] > 0


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_what_a_policy_and_its_operators_write_never_reaches_the_terminal_as_commands(
    flags: tuple, operators: RunningServer, policy: RunningServer
) -> None:
    def hostile(query: object, world: object, rng: object) -> Iterator[str]:
        yield sent
        yield f"<think>{sent}</think><tool>AnswerGenerate: {sent}</tool>"
        yield f"<think>{sent}</think><answer>{sent}</answer>"

    sent = HOSTILE.replace("\ud800", "")  # which the server of this test cannot write
    policy.endpoint.behaviour = hostile
    result = run("ask", "who directed Velmora ?", "--policy", policy.base_url, "--prompt", "none", *flags)
    assert result.exit_code == 0, result.output
    assert not obeyed(result.stdout)
    assert "[bold]not bold[/bold] [/] :smile:" in result.stdout


def test_what_no_endpoint_counted_is_unknown_and_not_zero(
    operators: RunningServer, policy: RunningServer, questions: Path, tmp_path: Path
) -> None:
    policy.endpoint.counts_tokens = False
    server = ("--policy", policy.base_url, "--prompt", "none")
    server += ("--policy-prompt-price", "1", "--policy-completion-price", "2")
    result = run("eval", *server, "-b", questions, "--limit", 2, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out/summary.json").read_text())["average"]["figures"]
    assert figures.keys().isdisjoint({"policy_tokens", "cost"})
    assert figures["operator_tokens"]["mean"] > 0
    (costs,) = [line for line in (tmp_path / "out/summary.md").read_text().splitlines() if "| average | 3.00 |" in line]
    assert costs.split(" | ")[2] == costs.split(" | ")[4] == "–"
    result = run("ask", "who directed Velmora ?", *server)
    assert ", – policy tokens, " in result.output
    assert "US$ –," in result.output
    result = run("ask", "who directed Velmora ?", *server, "--json")
    assert json.loads(result.stdout)["policy_prompt_tokens"] is None
    assert json.loads(result.stdout)["cost_usd"] is None


def test_first_turns_that_are_none_are_said_at_once(
    operators: RunningServer, policy: RunningServer, questions: Path, tmp_path: Path
) -> None:
    def without_thoughts(query: object, world: object, rng: object) -> Iterator[str]:
        while True:
            yield "<answer>Brenden</answer>"

    policy.endpoint.behaviour = without_thoughts
    result = run("eval", "--policy", policy.base_url, "--prompt", "none", "-b", questions, "-o", tmp_path / "out")
    said = " ".join(result.output.split())
    assert said.count("No first turn has been well-formed so far. A turn starts with <think>...</think>.") == 1
    assert "The last one began '<answer>Brenden</answer>'." in said
    assert "without --reasoning-parser" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("eval", "-b", "nq"), "eval: name either a policy or a baseline."),
        (("eval", "-b", "none.jsonl", "--baseline", "cot"), "There is no file, folder or benchmark 'none.jsonl'"),
        (("eval", "-b", "nq", "--policy", "./none"), "There is no folder none"),
        (("eval", "-b", "nq", "--baseline", "cot", "--operator-settings", "3,"), "operators: write a JSON object"),
        (("eval", "-b", "nq", "--baseline", "cot", "--max-calls", "0"), "limits.max_calls: Input should be greater"),
        (("eval", "-b", "nq", "--policy", "a/b", "--prompt", "none.jinja"), "none.jinja cannot be read"),
        (("eval", "-b", "nq", "--policy", "a/b", "--operators", "Reviw"), "no operator named 'Reviw'"),
        (("compare", "none.yaml"), "none.yaml cannot be read"),
        (("ask", "who?"), "Name the policy with --policy"),
        (("ask", "who?", "--policy", "http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1 cannot be reached"),
    ],
)
def test_a_users_mistake_is_one_sentence(arguments: tuple, sentence: str, operators: RunningServer) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_missing_operators_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPERATOR_BASE_URL", "OPERATOR_API_KEY", "OPERATOR_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    result = run("eval", "-b", "nq", "--baseline", "cot")
    assert result.exit_code == 1
    assert "OPERATOR_BASE_URL, OPERATOR_API_KEY, OPERATOR_MODEL_NAME are not set" in result.output
