"""Loading an evaluation set."""

import json

import pytest

from workflow_r1.data.benchmarks import load_benchmark
from workflow_r1.data.errors import DataError


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "quiz.jsonl"
    rows = [{"id": f"q{number}", "question": f"question {number}", "golden_answers": ["x"]} for number in range(30)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"id": "x", "question": "no answer"}])))
    return str(path)


def test_without_a_limit_every_usable_question_comes_in_order(questions):
    assert [row.id for row in load_benchmark(questions)] == [f"q{number}" for number in range(30)]


def test_a_limit_takes_a_part_that_grows_and_that_the_seed_decides(questions):
    few, more = (load_benchmark(questions, limit, seed=3) for limit in (5, 12))
    assert len(few) == 5
    assert len(more) == 12
    assert set(few) < set(more) < set(load_benchmark(questions))
    assert few == load_benchmark(questions, 5, seed=3) != load_benchmark(questions, 5, seed=4)
    assert [row.id for row in few] == sorted((row.id for row in few), key=lambda name: int(name[1:]))


def test_a_set_without_a_usable_row_is_an_error(tmp_path):
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"question": "q", "answer": []}\n')
    with pytest.raises(DataError, match=r"has no row with both a question and a gold answer \(1 read\)"):
        load_benchmark(str(path))
