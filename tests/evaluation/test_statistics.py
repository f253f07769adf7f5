"""Intervals and tests against values computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_r1.evaluation.statistics import bootstrap, most_frequent, pass_at_k, permutation_p_value


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_the_bootstrap_interval_of_a_proportion_is_the_binomial_one() -> None:
    # 100 questions, 30 right: a resample has Binomial(100, 0.3) right, whose 2.5 % and 97.5 % points are 21 and 39.
    (estimate,) = bootstrap([column(*[1] * 30, *[0] * 70)])
    assert estimate.mean == pytest.approx(0.30)
    assert estimate.low == pytest.approx(0.21, abs=0.01)
    assert estimate.high == pytest.approx(0.39, abs=0.01)


def test_the_average_over_benchmarks_weighs_each_the_same_and_resamples_each_by_itself() -> None:
    # Means 1.0 (10 questions) and 0.5 (1,000): averaged 0.75. Only the second varies, by sqrt(0.25/1000)/2 = 0.0079.
    (estimate,) = bootstrap([column(*[1] * 10), column(*[1, 0] * 500)])
    assert estimate.mean == pytest.approx(0.75)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.0079, rel=0.1)


def test_the_bootstrap_gives_the_same_interval_each_time() -> None:
    values = [column(*np.random.default_rng(3).random(50))]
    assert bootstrap(values) == bootstrap(values)


@settings(max_examples=20)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_an_interval_lies_within_the_values_and_around_the_mean(values: list[float]) -> None:
    (estimate,) = bootstrap([column(*values)])
    assert min(values) - 1e-9 <= estimate.low <= estimate.high <= max(values) + 1e-9
    assert estimate.mean == pytest.approx(np.mean(values), abs=1e-9)


def test_the_permutation_test_is_exact_for_few_differences() -> None:
    # Five differences, all +1: of the 32 sign patterns, two reach a sum of 5 in size.
    assert permutation_p_value([column(1, 1, 1, 1, 1)]) == 2 / 32
    # Equal questions change nothing: the same as above among 95 of them.
    assert permutation_p_value([column(*[1] * 5, *[0] * 95)]) == 2 / 32
    # Three for, two against: a sum of 1 or more in size is had by every pattern of five.
    assert permutation_p_value([column(1, 1, 1, -1, -1)]) == 1.0


def test_the_permutation_test_agrees_with_the_sign_test_for_many_differences() -> None:
    # 30 for and 10 against: the two-sided sign test, 2 * P(Binomial(40, 1/2) >= 30), gives 0.00222.
    assert permutation_p_value([column(*[1] * 30, *[-1] * 10)]) == pytest.approx(0.00222, abs=0.001)


def test_runs_that_agree_on_everything_do_not_differ() -> None:
    assert permutation_p_value([column(0, 0, 0)]) == 1.0


def test_a_difference_weighs_by_its_benchmark() -> None:
    # One question of a benchmark of one outweighs four of a benchmark of eight: 1/2 against 4 * 1/16. Of the 2^5
    # patterns, those with both benchmarks' signs aligned reach 3/4: two.
    differences = [column(1), column(1, 1, 1, 1, 0, 0, 0, 0)]
    assert permutation_p_value(differences) == 2 / 32


@pytest.mark.parametrize(
    ("samples", "right", "k", "expected"),
    [
        (4, 0, 2, 0.0),
        (4, 1, 1, 0.25),
        (4, 2, 1, 0.5),
        (4, 2, 2, 5 / 6),  # of the 6 pairs, one holds no right sample
        (10, 3, 5, 1 - 21 / 252),
        (4, 3, 2, 1.0),
        (5, 5, 5, 1.0),
    ],
)
def test_pass_at_k_counts_the_choices_without_a_right_sample(samples: int, right: int, k: int, expected: float) -> None:
    assert pass_at_k(samples, right, k) == pytest.approx(expected)


def test_pass_at_k_needs_k_samples() -> None:
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)


def test_the_majority_is_found_whatever_the_spelling() -> None:
    assert most_frequent(["Rome", "the Paris", "paris!", "Oslo"]) == "the Paris"
    assert most_frequent(["Oslo", "Rome"]) == "Oslo"
