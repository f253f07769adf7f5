"""Choosing rows: by seed, in the asked mix, nothing twice, nothing of the evaluation."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_r1.data.cleaning import clean_evaluation, question_key
from workflow_r1.data.errors import DataError, Reason
from workflow_r1.data.examples import Example
from workflow_r1.data.sampling import draw, lowest_ranked
from workflow_r1.data.selection import Selection, select_rows
from workflow_r1.data.sources import open_source


def example(number, source="nq"):
    return Example(f"{source}_{number}", f"question {number} of {source}", ("x",), source)


def source_of(tmp_path, **files):
    for name, rows in files.items():
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return [open_source(str(tmp_path))]


sizes = st.dictionaries(st.sampled_from(["nq", "hotpotqa", "mine"]), st.integers(0, 30), min_size=1)


@settings(max_examples=50)
@given(sizes, st.integers(1, 60), st.integers(0, 3))
def test_a_balanced_draw_takes_as_many_of_each_source_as_there_are(sizes, size, seed):
    rows = [example(number, source) for source, count in sizes.items() for number in range(count)]
    drawn = Counter(row.data_source for _, _, row in draw(lowest_ranked(rows, size, seed), size, "balanced"))
    assert sum(drawn.values()) == min(size, len(rows))
    # No source gives up a row to one that already has more.
    for source, count in sizes.items():
        assert drawn[source] == count or drawn[source] >= max(drawn.values()) - 1


@settings(max_examples=50)
@given(st.permutations([example(number) for number in range(20)]), st.integers(1, 20), st.integers(0, 3))
def test_what_is_drawn_depends_on_the_seed_and_not_on_the_order_of_the_input(rows, size, seed):
    def drawn(rows, size):
        return [row for _, _, row in draw(lowest_ranked(rows, size, seed), size, "natural")]

    chosen = drawn(rows, size)
    assert chosen == drawn(sorted(rows, key=lambda row: row.id), size)
    assert chosen == drawn(rows, None)[:size]
    assert len(set(chosen)) == size


def test_another_seed_draws_other_rows():
    rows = [example(number) for number in range(200)]
    first, second = ({row.id for _, _, row in lowest_ranked(rows, 50, seed)["nq"]} for seed in (1, 2))
    assert 0 < len(first & second) < 30


def test_a_natural_draw_keeps_the_proportions_of_the_source():
    rows = [example(number, "nq") for number in range(3000)] + [example(number, "hotpotqa") for number in range(1000)]
    drawn = Counter(row.data_source for _, _, row in draw(lowest_ranked(rows, 1000, 1), 1000, "natural"))
    assert drawn["nq"] == pytest.approx(750, abs=55)  # four standard deviations


@pytest.mark.parametrize("spelling", ["Who is IT?", " who  is it ", "ＷＨＯ is it ?", "who is it."])
def test_spellings_of_one_question_are_the_same_question(spelling):
    assert question_key(spelling) == question_key("who is it")


@pytest.mark.parametrize(("one", "other"), [("what is C", "what is C++"), ("3 + 4", "3 - 4"), ("why not", "why, not")])
def test_questions_that_differ_in_a_sign_are_not_the_same(one, other):
    assert question_key(one) != question_key(other)


def test_rows_that_cannot_be_trained_on_are_dropped_counted_and_named(tmp_path):
    [source] = source_of(
        tmp_path,
        train=[("who?", "x"), ("Who", "b"), ("", "x"), ("where?", []), ("In the test ?", "x"), ("when?", "c")],
        test=[("in the test", "x"), ("", "y"), ("again", "z"), ("again", "z"), ("again", "other")],
    )
    rows = select_rows([source], Selection())
    assert {row.question for row in rows.train} == {"who?", "when?"}
    assert [(row.question, row.golds) for row in rows.test] == [
        ("in the test", ("x",)),
        ("again", ("z",)),
        ("again", ("other",)),
    ]
    name = rows.train[0].data_source
    assert [(row.split, row.reason, row.example.id) for row in rows.dropped] == [
        ("test", Reason.NO_QUESTION, f"{name}_1"),
        ("test", Reason.DUPLICATE, f"{name}_3"),
        ("train", Reason.DUPLICATE, f"{name}_1"),
        ("train", Reason.NO_QUESTION, f"{name}_2"),
        ("train", Reason.NO_GOLD, f"{name}_3"),
        ("train", Reason.IN_EVALUATION, f"{name}_4"),
    ]


def test_a_question_that_two_benchmarks_share_stays_in_both():
    rows = [Example("1", "who?", ("x",), "nq"), Example("2", "who?", ("x",), "popqa")]
    assert list(clean_evaluation(rows, [])) == rows


def test_questions_of_an_excluded_file_are_not_trained_on(tmp_path):
    (tmp_path / "held.json").write_text(json.dumps([{"question": "Question 3!", "answer": "x"}]))
    (tmp_path / "own").mkdir()
    sources = source_of(tmp_path / "own", train=[(f"question {n}!", "x") for n in range(5)], test=[("other", "b")])
    rows = select_rows(sources, Selection(exclude=(str(tmp_path / "held.json"),)))
    assert {row.question for row in rows.train} == {f"question {n}!" for n in (0, 1, 2, 4)}


@pytest.mark.parametrize(("asked", "held_out"), [(None, 10), (7, 7)])
def test_without_a_test_split_test_rows_are_held_out_of_the_training_rows(tmp_path, asked, held_out):
    sources = source_of(tmp_path, questions=[(f"question {number}", "x") for number in range(100)])
    rows = select_rows(sources, Selection(num_test=asked))
    train, test = ([row.question for row in part] for part in (rows.train, rows.test))
    assert len(test) == held_out
    assert sorted(train + test) == sorted(f"question {number}" for number in range(100))
    assert test == sorted(test, key=lambda question: int(question.split()[1]))  # in the order of the source


def test_test_questions_are_kept_out_of_training_even_where_only_some_of_them_are_taken(tmp_path):
    shared = [(f"question {number}", "x") for number in range(20)]
    rows = select_rows(source_of(tmp_path, train=[*shared, ("own", "x")], test=shared), Selection(num_test=5))
    assert [row.question for row in rows.train] == ["own"]
    assert len(rows.test) == 5


def test_several_sources_are_one_dataset(tmp_path):
    (tmp_path / "nq_open.jsonl").write_text(
        "\n".join(json.dumps({"question": f"nq {number}", "answer": ["x"]}) for number in range(40))
    )
    (tmp_path / "hotpot.json").write_text(
        json.dumps([{"question": f"hp {number}", "answer": "x"} for number in range(80)])
    )
    sources = [open_source(str(tmp_path / name)) for name in ("nq_open.jsonl", "hotpot.json")]
    rows = select_rows(sources, Selection(num_train=20, num_test=10))
    assert Counter(row.data_source for row in rows.train) == {"nq": 10, "hotpotqa": 10}
    assert Counter(row.data_source for row in rows.test) == {"nq": 5, "hotpotqa": 5}


def test_a_source_that_leaves_nothing_to_train_on_says_why(tmp_path):
    sources = source_of(tmp_path, train=[("same", "x"), ("empty", "")], test=[("same", "x")])
    with pytest.raises(
        DataError, match=r"No training row is left of .*: 2 row\(s\) were dropped \(no gold answer; quest"
    ):
        select_rows(sources, Selection())
