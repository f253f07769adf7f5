"""Column layouts: each one known gives the same questions, and an unknown one is named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflow_r1.data.errors import DataError, Reason
from workflow_r1.data.examples import Example
from workflow_r1.data.layouts import read_examples
from workflow_r1.data.sources import SourceFile
from workflow_r1.world.world import World

ASKED = ("who wrote Emma", ("Jane Austen", "Austen"))


def verl_row(**columns):
    return {
        "data_source": "nq",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED[0]}],
        "reward_model": {"style": "rule", "ground_truth": {"target": list(ASKED[1])}},
        **columns,
    }


LAYOUTS = {
    "FlashRAG": {"id": "nq_7", "question": ASKED[0], "golden_answers": list(ASKED[1]), "metadata": {"x": 1}},
    "NQ-open": {"question": ASKED[0], "answer": list(ASKED[1])},
    "verl": verl_row(),
    "verl with the question noted": verl_row(
        prompt=[{"role": "user", "content": "Answer this: " + ASKED[0]}], extra_info={"question": ASKED[0]}
    ),
    "Hub nq_hotpotqa": verl_row(
        id="train_0",
        question=ASKED[0],
        golden_answers=list(ASKED[1]),
        prompt=[{"role": "user", "content": "Answer the question: " + ASKED[0]}],
    ),
}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceFile(str(path), "mine")


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_every_known_layout_gives_the_question_and_all_its_gold_answers(tmp_path, row, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        lines(path, [row])
    [example] = read_examples([SourceFile(str(path), "mine")])
    assert (example.question, example.golds) == ASKED
    assert example.data_source == row.get("data_source", "mine")
    assert example.id == row.get("id", f"{example.data_source}_0")


def test_a_hotpotqa_list_gives_its_one_answer_and_its_own_ids(tmp_path):
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps([{"_id": "5a7", "question": " Is it? ", "answer": "yes", "type": "comparison"}]))
    assert list(read_examples([SourceFile(str(path), "hotpotqa")])) == [Example("5a7", "Is it?", ("yes",), "hotpotqa")]


def test_the_embedded_worlds_files_are_read_too(tmp_path):
    world = World.build(1)
    train, _ = world.write_parquet(tmp_path, train=8, validation=2)
    expected = [(question.text, (question.answer,), question.data_source) for question in world.split(8, 2)[0]]
    found = [(row.question, row.golds, row.data_source) for row in read_examples([SourceFile(str(train), "?")])]
    assert found == expected


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        (["x", " x ", "", None, "y"], ("x", "y")),
        ("x", ("x",)),
        (1932, ("1932",)),
        ([7, 7.5], ("7", "7.5")),
    ],
)
def test_gold_answers_are_texts_and_numbers_each_once(tmp_path, answer, golds):
    [example] = read_examples([lines(tmp_path / "a.jsonl", [{"question": "q", "answer": answer}])])
    assert (example.golds, example.fault) == (golds, None)


def test_a_row_that_cannot_be_used_comes_with_its_fault(tmp_path):
    rows = [{"question": "q", "answer": "x"}, {"answer": "x"}, {"question": "q"}, {"question": None, "answer": None}]
    found = [
        (row.question, row.fault and row.fault.reason) for row in read_examples([lines(tmp_path / "a.jsonl", rows)])
    ]
    assert found == [("q", None), ("", Reason.NO_QUESTION), ("q", Reason.NO_GOLD), ("", Reason.NO_QUESTION)]


def test_a_prompt_that_is_a_text_is_called_that(tmp_path):
    [example] = read_examples([lines(tmp_path / "a.jsonl", [verl_row(prompt="who wrote Emma")])])
    assert example.fault.reason is Reason.NO_MESSAGES


def test_ids_are_unique_over_all_files_of_a_source(tmp_path):
    first = lines(tmp_path / "a.jsonl", [{"id": name, "question": "q", "answer": "x"} for name in ("x", "x", "x#2")])
    second = lines(tmp_path / "b.jsonl", [{"id": "x", "question": "q", "answer": "x"}])
    ids = [row.id for row in read_examples([first, second])]
    assert ids[0] == "x"
    assert len(set(ids)) == 4


def test_an_unknown_layout_says_which_columns_it_found_and_which_are_known(tmp_path):
    file = lines(tmp_path / "a.jsonl", [{"query": "q", "response": "a"}])
    with pytest.raises(DataError) as error:
        list(read_examples([file]))
    assert str(error.value) == (
        f"{file.origin} has no known column layout: it has the columns query, response; known are "
        "verl: prompt, reward_model; FlashRAG: question, golden_answers; NQ-open or HotpotQA: question, answer."
    )
