"""An evaluation from its settings to its reports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.scripted_endpoint import after_the_checks, error

from workflow_r1.evaluation.config import Comparison, RunSettings
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.evaluation.execution import execute, execute_all, prepare_run
from workflow_r1.evaluation.record import Record
from workflow_r1.evaluation.summary import Summary
from workflow_r1.reward import RewardError
from workflow_r1.world.server import Faults, RunningServer

Settings = Callable[..., RunSettings]
QUIET = Console(quiet=True)


async def run(settings: RunSettings, folder: Path) -> Summary:
    return (await execute(prepare_run("run", settings, folder), QUIET))[0]


def records(folder: Path) -> list[Record]:
    return [Record.model_validate_json(line) for line in (folder / "results.jsonl").read_text().splitlines()]


async def test_a_policy_is_evaluated_to_tables_and_a_chart(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    summary = await run(run_settings(), tmp_path / "run")

    assert summary.benchmarks.keys() == {"world_single", "world_two_hop"}
    assert summary.average is not None
    assert summary.average.questions == 24
    single, two_hop = (summary.benchmarks[name].figures for name in ("world_single", "world_two_hop"))
    assert (single["calls"].mean, two_hop["calls"].mean) == (2, 4)  # the script samples and votes once a hop
    assert single["ended_by/answered"].mean == 1
    assert two_hop["operator_tokens"].mean > single["operator_tokens"].mean > 0
    assert two_hop["policy_tokens"].mean > single["policy_tokens"].mean > 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("run.json", "run.lock", "results.jsonl", "summary.json", "summary.md", "summary.png")
    }
    assert Summary.model_validate_json((tmp_path / "run/summary.json").read_text()) == summary
    assert "| world_two_hop | 12 |" in (tmp_path / "run/summary.md").read_text()


REWARD = """
def reward(trajectory, golds, row, weight: float = 1.0):
    assert row["extra_info"]["question"] == row["question"] == trajectory.question
    assert row["data_source"].startswith("world_") and row["id"]
    return {"reward": weight * len(trajectory.calls), "of_two": float("two_hop" in row["data_source"])}
async def asks(trajectory, operators): return float(bool(await operators.call("AnswerGenerate", question="who ?")))
def broken(trajectory): return 1 / 0
"""


async def test_a_reward_of_ones_own_is_what_tables_figures_and_records_show(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(REWARD)
    reward = {"function": f"{tmp_path / 'own.py'}:reward", "settings": {"weight": 0.5}}
    summary = await run(run_settings(reward=reward), tmp_path / "run")
    single, two_hop = (summary.benchmarks[name].figures for name in ("world_single", "world_two_hop"))
    assert (single["reward/reward"].mean, two_hop["reward/reward"].mean) == (1.0, 2.0)
    assert (single["reward/of_two"].mean, two_hop["reward/of_two"].mean) == (0.0, 1.0)
    assert summary.parts == ["reward", "of_two"]
    table = (tmp_path / "run/summary.md").read_text()
    assert "| benchmark | questions | not served | reward | of_two |" in table
    assert "| world_two_hop | 12 | 0 | 200.0 [200.0, 200.0] | 100.0 [100.0, 100.0] |" in table
    assert all(set(record.trajectory.reward) == {"reward", "of_two"} for record in records(tmp_path / "run"))
    with pytest.raises(EvaluationError, match=r"another run \(it differs in reward\)"):
        await run(run_settings(), tmp_path / "run")


async def test_a_reward_that_asks_operators_is_served_in_an_evaluation(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(REWARD)
    summary = await run(run_settings(reward=f"{tmp_path / 'own.py'}:asks", limit=2), tmp_path / "run")
    assert summary.average is not None
    assert summary.average.figures["reward/reward"].mean == 1.0
    assert "pass@1" not in summary.average.figures


async def test_an_exception_in_a_reward_ends_the_evaluation_with_its_sentence(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(REWARD)
    with pytest.raises(RewardError, match=r"^--reward: the reward function .*:broken raised ZeroDivisionError"):
        await run(run_settings(reward=f"{tmp_path / 'own.py'}:broken"), tmp_path / "run")


async def test_runs_are_compared_in_what_all_of_them_have(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(REWARD)
    own = run_settings(reward=f"{tmp_path / 'own.py'}:reward")
    comparison = Comparison(runs={"own": own, "direct": run_settings(baseline="direct")}, reference="direct")
    grids, _ = await execute_all(comparison, tmp_path, QUIET)
    assert [grid.title for grid in grids][::2] == [
        "reward, times 100, with 95 % confidence intervals",
        "reward less that of direct, times 100, on the same questions",
    ]
    assert grids[1].header[:5] == ["run", "acc", "of_two", "f1", "sub_em"]
    assert (tmp_path / "comparison.png").is_file()


def by_a_reasoning_parser(choice: dict[str, Any]) -> None:
    thought, _, text = choice["message"]["content"].partition("</think>")
    choice["message"] = {"content": text, "reasoning_content": thought.removeprefix("<think>")}


def in_parts_after_an_opened_thought(choice: dict[str, Any]) -> None:
    choice["message"]["content"] = [{"type": "text", "text": choice["message"]["content"].removeprefix("<think>")}]
    choice["finish_reason"] = "eos"
    del choice["stop_reason"]


async def test_a_score_does_not_depend_on_how_the_server_sends_turns(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    as_openai = await run(run_settings(limit=2), tmp_path / "as_openai")
    for alter in (by_a_reasoning_parser, in_parts_after_an_opened_thought):
        policy.endpoint.alter = alter
        summary = await run(run_settings(limit=2), tmp_path / alter.__name__)
        for benchmark, row in summary.benchmarks.items():
            assert row.figures["malformed"].mean == 0
            assert row.figures["reward/acc"] == as_openai.benchmarks[benchmark].figures["reward/acc"]
    assert as_openai.average is not None
    assert as_openai.average.figures["reward/acc"].mean > 0


async def test_a_second_run_asks_nothing(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    first = await run(run_settings(), tmp_path / "run")
    asked = operators.endpoint.counters["requests"], len(policy.endpoint.requests)
    assert await run(run_settings(), tmp_path / "run") == first
    assert (operators.endpoint.counters["requests"], len(policy.endpoint.requests)) == asked
    assert set(policy.endpoint.asked.values()) == {1}


async def test_two_endpoints_that_name_no_model_do_not_share_a_folder(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    await run(run_settings(limit=2), tmp_path / "run")
    before = (tmp_path / "run/results.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match=r"another run \(it differs in policy\)"):
        await run(run_settings(limit=2, policy="http://127.0.0.1:9/v1"), tmp_path / "run")
    assert (tmp_path / "run/results.jsonl").read_bytes() == before


async def test_more_questions_and_samples_continue_a_run(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    await run(run_settings(limit=6, temperature=1.0), tmp_path / "run")
    summary = await run(run_settings(limit=10, temperature=1.0, samples=2), tmp_path / "run")
    assert summary.benchmarks["world_single"].questions + summary.benchmarks["world_two_hop"].questions == 10
    assert sorted(Record.model_validate(record).sample for record in records(tmp_path / "run")) == [0] * 10 + [1] * 10
    seeds = {body["seed"] for body in policy.endpoint.requests if "seed" in body}
    assert len(seeds) > 40  # every turn of every sample has its own


async def test_results_of_different_runs_are_not_mixed(
    operators: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    await run(run_settings(limit=2), tmp_path / "run")
    with pytest.raises(EvaluationError, match=r"another run \(it differs in limits\)"):
        await run(run_settings(limit=2, limits={"max_calls": 3}), tmp_path / "run")


async def test_a_failed_policy_request_is_recorded_not_scored_and_asked_again(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    unlucky = []

    def fail(body: dict) -> object:
        question = body["messages"][0]["content"]
        if "who" in question and (not unlucky or question in unlucky):
            unlucky.append(question)
            return error(500, "out of memory")
        return None

    policy.endpoint.fail = fail
    summary = await run(run_settings(), tmp_path / "run")
    assert summary.unserved == 1
    assert sum(benchmark.questions for benchmark in summary.benchmarks.values()) == 23
    (failed,) = [record for record in records(tmp_path / "run") if record.error]
    assert "answered 500: out of memory" in failed.error
    assert failed.trajectory is None

    policy.endpoint.fail = lambda body: None
    before = policy.endpoint.asked.total()
    summary = await run(run_settings(), tmp_path / "run")
    assert summary.unserved == 0
    assert policy.endpoint.asked.total() - before in (3, 5)  # the turns of the one question
    assert set(policy.endpoint.asked.values()) == {1}


async def test_a_failed_operator_call_is_recorded_not_scored_and_asked_again(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    settings = run_settings(operators={"max_retries": 0, "breaker_threshold": 10_000})
    policy.endpoint.watch = after_the_checks(lambda: setattr(operators.endpoint, "faults", Faults(server_error=0.1)))
    summary = await run(settings, tmp_path / "run")
    assert 0 < summary.unserved < 24
    failed = [record for record in records(tmp_path / "run") if record.error]
    assert all("answered 500" in record.error for record in failed)
    assert all(record.trajectory.ended_by == "operator_failure" for record in failed)

    policy.endpoint.watch = lambda body: None
    operators.endpoint.faults = Faults()
    summary = await run(settings, tmp_path / "run")
    assert summary.unserved == 0
    assert sum(benchmark.questions for benchmark in summary.benchmarks.values()) == 24


async def test_a_dead_endpoint_stops_the_run_with_one_sentence(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    policy.endpoint.fail = lambda body: error(503, "down") if body.get("max_tokens") != 1 else None
    with pytest.raises(EvaluationError, match=r"50 questions in a row .* 503: down\. Run the same command again"):
        await run(run_settings(samples=4, temperature=1.0), tmp_path / "run")


async def test_no_more_questions_are_worked_on_at_once_than_allowed(
    operators: RunningServer, policy: RunningServer, run_settings: Settings, tmp_path: Path
) -> None:
    policy.endpoint.latency = 0.01
    await run(run_settings(concurrency=5), tmp_path / "run")
    assert policy.endpoint.most_at_once == 5


@pytest.mark.slow
async def test_a_file_of_runs_becomes_one_table_and_one_chart(
    operators: RunningServer, policy: RunningServer, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs.yaml").write_text(
        f"""
        benchmarks: [{questions}]
        prompt: none
        runs:
          direct: {{baseline: direct}}
          ensemble: {{baseline: ensemble}}
          scripted: {{policy: "{policy.base_url}", operators: {{completion_price: 2}}}}
        """
    )
    comparison = Comparison.read(tmp_path / "runs.yaml")
    grids, unserved = await execute_all(comparison, tmp_path / "out", QUIET)
    assert unserved == 0
    assert [row[0] for row in grids[0].rows] == ["direct", "ensemble", "scripted"]
    assert grids[0].header == ["run", "world_two_hop", "world_single", "average"]

    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["reference"] == "scripted"
    assert content["differences"]["direct"]["questions"] == 24
    assert content["differences"]["direct"]["difference"]["mean"] < 0  # decomposing and voting beats one call
    costs = [run["average"]["figures"]["cost"]["mean"] for run in content["runs"]]
    assert costs[:2] == [0, 0]
    assert costs[2] > 0
    assert (tmp_path / "out/comparison.png").stat().st_size > 10_000

    asked = operators.endpoint.counters["requests"]
    assert await execute_all(comparison, tmp_path / "out", QUIET) == (grids, 0)
    assert operators.endpoint.counters["requests"] == asked
