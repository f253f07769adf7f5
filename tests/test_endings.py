"""What an ending means for the loss, and DAPO's soft length penalty by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.endings import Endings, soft_length_penalty
from workflow_r1.trajectory import EndedBy, Trajectory, Turn


def test_every_ending_has_a_setting():
    assert Endings.model_fields.keys() - {"cache_length"} == {ended_by.value for ended_by in EndedBy}


def test_by_default_only_what_is_not_the_policys_doing_is_masked():
    masked = {ended_by for ended_by in EndedBy if Endings().of(ended_by) == "masked"}
    assert masked == {EndedBy.OPERATOR_FAILURE, EndedBy.DEADLINE}


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (75, 0.0), (76, 0.0), (77, -1 / 24), (88, -0.5), (99, -23 / 24), (100, -1.0), (101, -1.0)],
)
def test_the_penalty_grows_over_the_last_tokens(length: int, penalty: float):
    assert soft_length_penalty(length, 100, 24) == pytest.approx(penalty)


@given(length=st.integers(0, 20_000), longest=st.integers(1, 10_000), cache=st.integers(1, 10_000))
def test_the_penalty_is_equation_13(length: int, longest: int, cache: int):
    if length <= longest - cache:
        expected = 0.0
    elif length <= longest:
        expected = ((longest - cache) - length) / cache
    else:
        expected = -1.0
    assert soft_length_penalty(length, longest, cache) == pytest.approx(expected)


def a_trajectory(ended_by: EndedBy, length: int) -> Trajectory:
    turns = [Turn(text="t", tokens=(0, 3)), Turn(text="t", tokens=(5, length))]
    return Trajectory(question="q", turns=turns, ended_by=ended_by, reward={"acc": 1.0, "reward": 0.5})


def test_only_a_shaped_ending_is_shaped_and_the_part_stands_with_all():
    endings = Endings(length_limit="shaped", cache_length=10)
    cut, answered = a_trajectory(EndedBy.LENGTH_LIMIT, 95), a_trajectory(EndedBy.ANSWERED, 95)
    endings.shape(cut, 100)
    endings.shape(answered, 100)
    assert cut.reward == {"acc": 1.0, "reward": 0.0, "length_penalty": -0.5}
    assert answered.reward == {"acc": 1.0, "reward": 0.5, "length_penalty": 0.0}


def test_without_a_shaped_ending_or_a_reward_nothing_is_added():
    trajectory = a_trajectory(EndedBy.LENGTH_LIMIT, 100)
    Endings().shape(trajectory, 100)
    assert trajectory.reward == {"acc": 1.0, "reward": 0.5}
    unscored = Trajectory(question="q", ended_by=EndedBy.ANSWERED, unscored="The judge is down.")
    Endings(answered="shaped", cache_length=1).shape(unscored, 100)
    assert unscored.reward == {}
