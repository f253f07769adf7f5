"""The metrics agree with SQuAD's evaluation (v1.1) on cases worked out by hand from its definition.

That is: lower case, then without the ASCII punctuation, then without the words a, an and the, then white space
collapsed; exact match compares, F1 is over the bag of words; the best gold answer counts. One case goes by v2.0, which
defined what v1.1 left open: two answers that are both empty agree fully.
"""

import pytest

from workflow_r1.answers import exact_match, f1_score, normalise_answer

CASES = [
    # answer, golds, exact match, F1
    ("Paris", ["Paris"], 1, 1.0),
    ("paris.", ["Paris"], 1, 1.0),
    ("The Beatles", ["Beatles"], 1, 1.0),
    ("a cat and an owl", ["cat and the owl"], 1, 1.0),
    ("Theatre", ["theatre"], 1, 1.0),  # "the" goes as a word only
    ("Los   Angeles\n", ["Los Angeles"], 1, 1.0),
    ("J. R. R. Tolkien", ["J.R.R. Tolkien"], 0, 1 / 3),  # {j, r, r, tolkien} and {jrr, tolkien}: 2 * 1 / (4 + 2)
    ("U.S.A.", ["USA"], 1, 1.0),
    ("well-known", ["well known"], 0, 0.0),  # punctuation goes, no space comes
    ("O'Brien", ["OBrien"], 1, 1.0),
    ("Beyoncé", ["Beyonce"], 0, 0.0),  # accents stay
    ("“Help!”", ["Help"], 0, 0.0),  # only ASCII punctuation goes: “help”
    ("北京", ["北京"], 1, 1.0),
    ("ÉCOLE", ["école"], 1, 1.0),
    ("1,000", ["1000"], 1, 1.0),
    ("3.14", ["314"], 1, 1.0),  # the definition's own blind spot
    ("ten", ["10"], 0, 0.0),
    ("1969", ["July 20, 1969"], 0, 0.5),  # 2 * 1 / (1 + 3)
    ("20 July 1969", ["July 20, 1969"], 0, 1.0),  # a bag of words knows no order
    ("yes", ["yes"], 1, 1.0),
    ("Yes, it is", ["yes"], 0, 0.5),
    ("yes", ["no"], 0, 0.0),
    ("", ["Paris"], 0, 0.0),
    ("...", ["Paris"], 0, 0.0),
    ("the", ["a"], 1, 1.0),  # both empty (v2.0)
    ("New York City", ["New York", "NYC"], 0, 0.8),  # 2 * 2 / (3 + 2)
    ("NYC", ["New York", "NYC"], 1, 1.0),
    ("the the cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as it stands: 2 * 1 / (2 + 1)
    ("Paris", [], 0, 0.0),
]


@pytest.mark.parametrize(("answer", "golds", "em", "f1"), CASES)
def test_exact_match_and_f1_are_squads(answer: str, golds: list[str], em: float, f1: float) -> None:
    assert exact_match(answer, golds) == em
    assert f1_score(answer, golds) == pytest.approx(f1)


def test_normalisation_takes_articles_out_after_punctuation() -> None:
    assert normalise_answer("The-end of 'the' story, a.k.a. An End!") == "theend of story aka end"
