"""What the records of a run say: figures by benchmark and on average, each with its confidence interval."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from pydantic import BaseModel

from workflow_r1.answers import exact_match
from workflow_r1.data.examples import Example
from workflow_r1.evaluation.record import Key, Record
from workflow_r1.evaluation.statistics import (
    Estimate,
    Matrix,
    bootstrap,
    most_frequent,
    pass_at_k,
    permutation_p_value,
)
from workflow_r1.records import total
from workflow_r1.reward import acc_first
from workflow_r1.services.service import ServiceSettings, token_cost
from workflow_r1.trajectory import EndedBy, Trajectory

REWARD = "reward/"
"""What a figure's name begins with if it is a part of the reward, as in the metrics of a training run."""


@dataclass(frozen=True)
class Prices:
    """What tokens cost.

    Attributes:
        policy_prompt: US dollars per million prompt tokens of the policy.
        policy_completion: the same for its completion tokens.
        services: by operator, the service that it asks. A call counts as one request.
    """

    policy_prompt: float = 0.0
    policy_completion: float = 0.0
    services: Mapping[str, ServiceSettings] = field(default_factory=dict)

    def cost(self, trajectory: Trajectory, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """US dollars of one trajectory, given the tokens of the policy; None where some were not counted."""
        operators = total(
            self.services[call.operator].cost(1, call.prompt_tokens, call.completion_tokens)
            for call in trajectory.calls
            if call.operator in self.services
        )
        policy = [
            token_cost(prompt_tokens, self.policy_prompt),
            token_cost(completion_tokens, self.policy_completion),
        ]
        return total([operators, *policy])


@dataclass
class Scores:
    """The figures of each question of a run, its samples taken together.

    Attributes:
        questions: by benchmark, then by the question's id.
        unserved: by benchmark, how many questions lack a sample because an endpoint failed: they are in no figure.
    """

    samples: int
    questions: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    unserved: dict[str, int] = field(default_factory=dict)


def score_questions(examples: Iterable[Example], records: Mapping[Key, Record], samples: int, prices: Prices) -> Scores:
    """Score the questions that were asked.

    A question counts once all its samples were served, so that a failing endpoint neither lowers a score nor lets
    some questions weigh more than others.
    """
    scores = Scores(samples, defaultdict(dict), defaultdict(int))
    for example in examples:
        asked = [records.get((example.data_source, example.id, sample)) for sample in range(samples)]
        served = [record for record in asked if record is not None and record.error is None]
        scores.unserved[example.data_source] += len(served) < samples
        if len(served) == samples:
            scores.questions[example.data_source][example.id] = _figures(served, example.golds, prices)
    return scores


def _figures(records: Sequence[Record], golds: Sequence[str], prices: Prices) -> dict[str, float]:
    rows = [_sample_figures(record, prices) for record in records]
    measured = {name: [row[name] for row in rows if name in row] for row in rows for name in row}
    # A figure that was not measured for each of them is not there; a reward function may leave a part of its out.
    figures = {
        name: fmean(values) for name, values in measured.items() if len(values) == len(rows) or name.startswith(REWARD)
    }
    if len(records) > 1:
        if (right := measured.get(f"{REWARD}acc")) is not None:
            for k in _sample_counts(len(records)):
                figures[f"pass@{k}"] = pass_at_k(len(records), sum(value >= 1 for value in right), k)
        answers = [record.trajectory.answer for record in records if record.trajectory]
        given = [answer for answer in answers if answer is not None]
        figures["majority"] = exact_match(most_frequent(given), golds) if given else 0.0
    return figures


def _sample_figures(record: Record, prices: Prices) -> dict[str, float]:
    trajectory = record.trajectory
    assert trajectory is not None, "a served record has a trajectory"
    figures = {
        **{f"{REWARD}{part}": trajectory.reward[part] for part in acc_first(trajectory.reward)},
        "calls": len(trajectory.calls),
        "turns": len(trajectory.turns),
        "malformed": float(trajectory.num_malformed > 0),
        "policy_tokens": total([record.prompt_tokens, record.completion_tokens]),
        "operator_tokens": total(call.tokens for call in trajectory.calls),
        "cost": prices.cost(trajectory, record.prompt_tokens, record.completion_tokens),
        "seconds": record.seconds,
        **{f"ended_by/{reason.value}": float(trajectory.ended_by is reason) for reason in EndedBy},
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _sample_counts(samples: int) -> list[int]:
    """1, 2, 4, ... and `samples` itself."""
    return sorted({2**power for power in range(samples.bit_length()) if 2**power <= samples} | {samples})


class BenchmarkSummary(BaseModel):
    """The figures of one benchmark.

    Attributes:
        questions: those that are in the figures.
        unserved: those that are not, because an endpoint failed.
        figures: means over questions: `reward/<part>` for whatever the reward function returns, `acc` first; `calls`,
            `turns`, `malformed`, `policy_tokens`, `operator_tokens`, `cost` (US dollars), `seconds`,
            `ended_by/<reason>`; with several samples, `majority`, and `pass@<k>` where there is an `acc`. Empty where
            no question was served; without tokens and cost where an endpoint did not count them.
    """

    questions: int
    unserved: int
    figures: dict[str, Estimate]

    @property
    def parts(self) -> list[str]:
        """The parts of the reward, `acc` first."""
        return acc_first(name.removeprefix(REWARD) for name in self.figures if name.startswith(REWARD))


class Summary(BaseModel):
    """The figures of one run.

    Attributes:
        average: the mean of the benchmarks' means, as the papers' tables average; None unless each has figures.
    """

    name: str
    samples: int
    benchmarks: dict[str, BenchmarkSummary]
    average: BenchmarkSummary | None

    @property
    def unserved(self) -> int:
        return sum(benchmark.unserved for benchmark in self.benchmarks.values())

    @property
    def parts(self) -> list[str]:
        """The parts of the reward on any benchmark, `acc` first."""
        return acc_first(part for benchmark in self.benchmarks.values() for part in benchmark.parts)


def summarise(name: str, scores: Scores) -> Summary:
    """Summarise a run."""
    benchmarks = {
        benchmark: _summary([scores.questions.get(benchmark, {})], unserved)
        for benchmark, unserved in scores.unserved.items()
    }
    complete = bool(benchmarks) and all(benchmark.questions for benchmark in benchmarks.values())
    average = _summary(list(scores.questions.values()), sum(scores.unserved.values())) if complete else None
    return Summary(name=name, samples=scores.samples, benchmarks=benchmarks, average=average)


def _summary(groups: Sequence[Mapping[str, Mapping[str, float]]], unserved: int) -> BenchmarkSummary:
    questions = sum(map(len, groups))
    if not questions:
        return BenchmarkSummary(questions=0, unserved=unserved, figures={})
    rows = [row for group in groups for row in group.values()]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    matrices = [np.array([[row[name] for name in names] for row in group.values()]) for group in groups]
    figures = dict(zip(names, bootstrap(matrices), strict=True))
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith(REWARD) and name not in figures):
        columns = [np.array([[row[name]] for row in group.values() if name in row]) for group in groups]
        if all(map(len, columns)):
            figures[name] = bootstrap(columns)[0]
    return BenchmarkSummary(questions=questions, unserved=unserved, figures=figures)


class Difference(BaseModel):
    """One run against another on the questions that both answered.

    Attributes:
        difference: of the averages over benchmarks, with its bootstrap confidence interval.
        p_value: of the two-sided paired permutation test.
    """

    questions: int
    difference: Estimate
    p_value: float


def paired_difference(run: Scores, reference: Scores, part: str = "acc") -> Difference | None:
    """`run` less `reference` in a part of the reward; None if they share no question that has it."""
    figure = f"{REWARD}{part}"
    groups: list[Matrix] = []
    for benchmark, questions in run.questions.items():
        others = reference.questions.get(benchmark, {})
        shared = [id for id in questions if figure in questions[id] and figure in others.get(id, {})]
        if shared:
            groups.append(np.array([[questions[id][figure] - others[id][figure]] for id in shared]))
    if not groups:
        return None
    return Difference(
        questions=sum(map(len, groups)), difference=bootstrap(groups)[0], p_value=permutation_p_value(groups)
    )
