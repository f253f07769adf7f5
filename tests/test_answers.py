import pytest

from workflow_r1.answers import exact_match, f1_score, normalise_answer, substring_match


def test_normalisation_is_squads():
    assert normalise_answer("  The Quick, brown  Fox! ") == "quick brown fox"
    assert normalise_answer("An apple a day") == "apple day"
    assert normalise_answer("Theatre") == "theatre"


@pytest.mark.parametrize(
    ("answer", "golds", "em", "f1"),
    [
        ("Paris", ["Paris"], 1.0, 1.0),
        ("the paris.", ["Paris"], 1.0, 1.0),
        ("Paris France", ["Paris"], 0.0, 2 / 3),
        ("Rome", ["Paris", "Rome"], 1.0, 1.0),
        ("Rome", ["Paris"], 0.0, 0.0),
        ("", ["Paris"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("x", [], 0.0, 0.0),
        ("b b a", ["b a c"], 0.0, 0.5),
    ],
)
def test_exact_match_and_f1(answer, golds, em, f1):
    assert exact_match(answer, golds) == em
    assert f1_score(answer, golds) == pytest.approx(f1)


def test_substring_match_respects_words():
    assert substring_match("it is Paris, France", ["Paris"]) == 1.0
    assert substring_match("Parisian", ["Paris"]) == 0.0
    assert substring_match("anything", ["the"]) == 0.0
