"""The simulated competence errs at the rates it states. Each rate is checked within four standard errors."""

import math
import random
from collections.abc import Callable

import pytest

from workflow_r1.world.brain import UNKNOWN, Brain, Reliability
from workflow_r1.world.world import Question, World

SAMPLES = 2000
RATES = Reliability()


@pytest.fixture
def brain(world: World) -> Brain:
    return Brain(world)


def questions(world: World, hops: int) -> list[Question]:
    return [question for question in world.questions if question.query.hops == hops]


def assert_rate(expected: float, succeeds: Callable[[Question, random.Random], bool], asked: list[Question]) -> None:
    rng = random.Random(0)
    successes = sum(succeeds(rng.choice(asked), rng) for _ in range(SAMPLES))
    margin = 4 * math.sqrt(expected * (1 - expected) / SAMPLES)
    assert successes / SAMPLES == pytest.approx(expected, abs=margin)


@pytest.mark.parametrize(("hops", "rate"), [(1, RATES.single_hop), (2, RATES.two_hop)])
def test_answers_are_right_at_the_rate_of_their_hops(brain: Brain, world: World, hops: int, rate: float) -> None:
    assert_rate(rate, lambda q, rng: brain.answer(q.text, rng) == q.answer, questions(world, hops))


def test_a_wrong_answer_is_of_the_kind_that_was_asked_for(brain: Brain, world: World) -> None:
    rng = random.Random(0)
    for question in questions(world, 2):
        assert world.kind_of[brain.answer(question.text, rng).lower()] == question.query.answer_kind


def test_a_question_about_the_wrong_kind_of_thing_gets_a_plausible_answer(brain: Brain, world: World) -> None:
    city = world.entities["city"][0]
    assert brain.answer(f"who directed {city} ?", random.Random(0)) in world.entities["person"]


def test_a_question_that_is_not_of_this_world_has_no_answer(brain: Brain) -> None:
    assert brain.answer("how many moons has Jupiter ?", random.Random(0)) == UNKNOWN


@pytest.mark.parametrize("right", [True, False])
def test_a_review_finds_the_right_verdict_at_its_rate(brain: Brain, world: World, right: bool) -> None:
    def verdict(question: Question, rng: random.Random) -> bool:
        solution = question.answer if right else rng.choice(world.entities["person"]) + "x"
        return brain.review(question.text, solution, rng).right == right

    assert_rate(RATES.review, verdict, questions(world, 1))


@pytest.mark.parametrize(("hops", "rate"), [(1, RATES.revise_single_hop), (2, RATES.revise_two_hop)])
def test_revising_after_a_bad_review_beats_answering_anew(brain: Brain, world: World, hops: int, rate: float) -> None:
    feedback = "Wrong, the solution is not right."
    assert rate > (RATES.single_hop, RATES.two_hop)[hops - 1]
    assert_rate(rate, lambda q, rng: brain.revise(q.text, "Nobody", feedback, rng) == q.answer, questions(world, hops))


def test_revising_after_a_good_review_mostly_keeps_the_solution(brain: Brain, world: World) -> None:
    feedback = "Correct, the solution is right."
    assert_rate(
        RATES.keep, lambda q, rng: brain.revise(q.text, "Nobody", feedback, rng) == "Nobody", questions(world, 2)
    )


def test_the_majority_is_picked_whatever_is_right(brain: Brain, world: World) -> None:
    question = questions(world, 1)[0]
    for seed in range(20):
        picked = brain.pick(question.text, [question.answer, "Norbex", "norbex."], random.Random(seed))
        assert picked in (1, 2)


def test_a_tie_is_settled_for_the_right_candidate_at_its_rate(brain: Brain, world: World) -> None:
    def picks_right(question: Question, rng: random.Random) -> bool:
        candidates = ["Norbex", question.answer, "Tolvar"]
        return brain.pick(question.text, candidates, rng) == 1

    assert_rate(RATES.tie, picks_right, questions(world, 1))


def test_picking_from_nothing_is_refused(brain: Brain) -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        brain.pick("who wrote it ?", [], random.Random(0))


def test_a_rewritten_query_is_the_plain_question(brain: Brain, world: World) -> None:
    question = questions(world, 2)[0]
    assert brain.rewrite(f"So,  tell me: {question.text.upper()}") == question.query.text.replace(
        question.query.subject, question.query.subject.upper()
    )
    assert brain.rewrite("  no question\n at all ") == "no question at all"
