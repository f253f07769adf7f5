"""The figures of a run, from its records."""

import pytest

from workflow_r1.data.examples import Example
from workflow_r1.evaluation.record import Key, Record
from workflow_r1.evaluation.report import Grid, comparison_grids, run_grids
from workflow_r1.evaluation.summary import Prices, paired_difference, score_questions, summarise
from workflow_r1.reward import exact_match_reward
from workflow_r1.services.service import ServiceSettings
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn

FREE = Prices()


def example(number: int, benchmark: str = "nq") -> Example:
    return Example(f"{benchmark}-{number}", "who?", ("Ada", "Ada Lovelace"), benchmark)


def record(example: Example, answer: str | None, sample: int = 0, calls: int = 1, error: str | None = None) -> Record:
    call = CallRecord(operator="AnswerGenerate", input="who?", output="x", prompt_tokens=100, completion_tokens=10)
    turns = [Turn(text="", calls=[call]) for _ in range(calls)]
    if answer is not None:
        turns.append(Turn(text="", answer=answer))
    ended_by = EndedBy.TURN_LIMIT if answer is None else EndedBy.ANSWERED
    trajectory = Trajectory(question=example.question, turns=turns, ended_by=ended_by)
    trajectory.reward = exact_match_reward(trajectory, example.golds)
    return Record(
        benchmark=example.data_source,
        id=example.id,
        sample=sample,
        trajectory=trajectory,
        prompt_tokens=2000,
        completion_tokens=50,
        error=error,
    )


def by_key(*records: Record) -> dict[Key, Record]:
    return {record.key: record for record in records}


def test_the_figures_are_means_over_questions() -> None:
    examples = [example(number) for number in range(4)]
    records = by_key(
        record(examples[0], "Ada"),
        record(examples[1], "Ada Byron", calls=3),  # F1: 2 * 1 / (2 + 1) with "Ada", 1/2 with "Ada Lovelace"
        record(examples[2], "Babbage"),
        record(examples[3], None),
    )
    service = ServiceSettings(max_concurrency=1, prompt_price=0.5, completion_price=2, request_price=0.01)
    prices = Prices(policy_prompt=1, policy_completion=4, services={"AnswerGenerate": service})
    summary = summarise("run", score_questions(examples, records, 1, prices))
    figures = {name: estimate.mean for name, estimate in summary.benchmarks["nq"].figures.items()}

    assert figures["reward/acc"] == 0.25
    assert figures["reward/f1"] == pytest.approx((1 + 2 / 3) / 4)
    assert figures["reward/sub_em"] == 0.5
    assert figures["calls"] == 1.5
    assert figures["policy_tokens"] == 2050
    assert figures["operator_tokens"] == 1.5 * 110
    # Per question 2000 * 1 + 50 * 4 for the policy, and per call 100 * 0.5 + 10 * 2 and 10 for the request, in
    # millionths of a dollar.
    assert figures["cost"] == pytest.approx((2200 + 1.5 * 80) / 1e6)
    assert (figures["ended_by/answered"], figures["ended_by/turn_limit"]) == (0.75, 0.25)


def test_a_question_that_was_not_served_is_counted_and_not_scored() -> None:
    examples = [example(number) for number in range(3)]
    records = by_key(record(examples[0], "Ada"), record(examples[1], "Babbage", error="down"))
    summary = summarise("run", score_questions(examples, records, 1, FREE))
    assert (summary.benchmarks["nq"].questions, summary.unserved) == (1, 2)
    assert summary.benchmarks["nq"].figures["reward/acc"].mean == 1


def test_a_benchmark_without_a_served_question_leaves_no_average() -> None:
    examples = [example(0), example(0, "hotpotqa")]
    summary = summarise("run", score_questions(examples, by_key(record(examples[0], "Ada")), 1, FREE))
    assert summary.benchmarks["hotpotqa"].figures == {}
    assert summary.average is None
    assert all("–" in grid.rows[1] for grid in run_grids(summary))


def test_the_average_weighs_every_benchmark_the_same() -> None:
    examples = [*(example(number) for number in range(9)), example(0, "hotpotqa")]
    records = by_key(*(record(example, "Ada" if example.data_source == "nq" else "no") for example in examples))
    summary = summarise("run", score_questions(examples, records, 1, FREE))
    assert summary.average is not None
    assert summary.average.figures["reward/acc"].mean == 0.5
    assert summary.average.questions == 10


def test_several_samples_give_pass_at_k_and_the_majority() -> None:
    examples = [example(0), example(1)]
    answers = (["Ada", "Ada", "Babbage", None], ["Ada", "Babbage", "babbage", "Turing"])
    records = by_key(
        *(
            record(example, answer, sample)
            for example, given in zip(examples, answers, strict=True)
            for sample, answer in enumerate(given)
        )
    )
    figures = summarise("run", score_questions(examples, records, 4, FREE)).benchmarks["nq"].figures
    assert figures["reward/acc"].mean == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert figures["pass@1"].mean == pytest.approx(figures["reward/acc"].mean)
    assert figures["pass@2"].mean == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert figures["pass@4"].mean == 1
    assert figures["majority"].mean == 0.5  # Ada for the first question, Babbage for the second


def test_a_part_that_not_every_answer_has_is_the_mean_of_those_that_have_it() -> None:
    examples = [example(number) for number in range(3)]
    rewards = ({"reward": 1.0, "style": 0.25}, {"reward": 0.0}, {"reward": -1.0, "style": 0.75})
    records = [record(example, "Ada") for example in examples]
    for one, reward in zip(records, rewards, strict=True):
        assert one.trajectory is not None
        one.trajectory.reward = reward
    summary = summarise("run", score_questions(examples, by_key(*records), 1, FREE))
    figures = summary.benchmarks["nq"].figures
    assert (figures["reward/reward"].mean, figures["reward/style"].mean) == (0.0, 0.5)
    assert summary.parts == ["reward", "style"]
    scores = run_grids(summary)[0]
    assert scores.header[3:] == ["reward", "style"]
    assert scores.rows[0][4].startswith("50.0 [")


def test_a_question_counts_only_with_all_its_samples() -> None:
    examples = [example(0), example(1)]
    records = by_key(record(examples[0], "Ada"), record(examples[0], "Ada", 1), record(examples[1], "Ada"))
    scores = score_questions(examples, records, 2, FREE)
    assert scores.unserved["nq"] == 1
    assert list(scores.questions["nq"]) == ["nq-0"]


def test_runs_are_compared_on_the_questions_that_both_answered() -> None:
    examples = [example(number) for number in range(8)]
    good = score_questions(examples, by_key(*(record(example, "Ada") for example in examples[:7])), 1, FREE)
    bad = score_questions(examples, by_key(*(record(example, "no") for example in examples[2:])), 1, FREE)
    found = paired_difference(bad, good)
    assert found is not None
    assert found.questions == 5
    assert found.difference.mean == -1
    assert found.p_value == 2 / 32
    assert paired_difference(good, score_questions(examples, {}, 1, FREE)) is None


def test_a_comparison_has_a_row_a_run_and_the_reference_is_compared_with_nobody() -> None:
    examples = [example(number) for number in range(5)]
    scores = {
        name: score_questions(examples, by_key(*(record(example, answer) for example in examples)), 1, FREE)
        for name, answer in (("cot", "no"), ("ours", "Ada"))
    }
    summaries = [summarise(name, found) for name, found in scores.items()]
    em, costs, differences = comparison_grids(
        summaries, "ours", {"cot": paired_difference(scores["cot"], scores["ours"])}
    )
    assert em.rows == [["cot", "0.0 [0.0, 0.0]"], ["ours", "100.0 [100.0, 100.0]"]]
    assert [row[0] for row in costs.rows] == ["cot", "ours"]
    assert differences.rows == [["cot", "5", "-100.0 [-100.0, -100.0]", "0.062"]]


def test_markdown_keeps_its_columns_whatever_a_name_holds() -> None:
    grid = Grid("title", ["run", "EM"], [["a|b", "1.0"]])
    assert grid.to_markdown() == "**title**\n\n| run | EM |\n| --- | ---: |\n| a\\|b | 1.0 |\n"
