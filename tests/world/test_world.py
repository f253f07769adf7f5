import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.answers import normalise_answer
from workflow_r1.world.language import PATHS, Query, find_queries, parse_query
from workflow_r1.world.world import POPULATION, World


def test_the_same_seed_gives_byte_identical_parquet(tmp_path: Path) -> None:
    digests = []
    for number in range(2):
        paths = World.build(seed=3).write_parquet(tmp_path / str(number), train=64, validation=16)
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    assert digests[0] == digests[1]


def test_another_seed_is_another_world(world: World) -> None:
    other = World.build(seed=2)
    assert set(other.entities["person"]) != set(world.entities["person"])


def test_a_variant_has_the_same_names_and_other_facts(world: World) -> None:
    variant = World.build(seed=1, variant=1)
    assert variant.entities == world.entities
    same = sum(variant.facts[key] == world.facts[key] for key in world.facts)
    assert variant.facts.keys() == world.facts.keys()
    assert same / len(world.facts) < 0.05


def test_every_name_is_one_word_that_scoring_tells_apart_from_every_other(world: World) -> None:
    names = [name for kind in POPULATION for name in world.entities[kind]]
    assert len({normalise_answer(name) for name in names}) == len(names) == sum(POPULATION.values())
    assert all(name.isalpha() and name.istitle() for name in names)


def test_a_two_hop_answer_is_the_answer_about_the_answer(world: World) -> None:
    two_hop = [question for question in world.questions if question.query.hops == 2]
    for question in two_hop:
        first, second = question.query.path
        between = world.facts[first.name, question.query.subject]
        assert question.answers == (between, world.facts[second.name, between])


def test_marriage_is_symmetric_and_to_someone_else(world: World) -> None:
    for person in world.entities["person"]:
        spouse = world.facts["spouse", person]
        assert spouse != person
        assert world.facts["spouse", spouse] == person


def test_no_question_names_its_own_answer(world: World) -> None:
    assert all(question.answer not in question.text.split() for question in world.questions)


@given(st.sampled_from(PATHS), st.from_regex(r"[A-Z][a-z]{2,9}", fullmatch=True))
def test_every_question_reads_back_as_what_it_asks(path: tuple, subject: str) -> None:
    query = Query(path, subject)
    assert parse_query(query.text) == query
    assert find_queries(f"Please, {query.text} Thank you.") == [query]


@given(st.text(max_size=80))
def test_any_text_can_be_searched_for_questions(text: str) -> None:
    assert parse_query(text) is None or len(find_queries(text)) == 1


def test_training_and_validation_questions_never_overlap(world: World) -> None:
    train, validation = world.split(train=512, validation=128)
    assert len({question.text for question in train}) == 512
    assert len({question.text for question in validation}) == 128
    assert not {question.text for question in train} & {question.text for question in validation}
    for part in (train, validation):
        assert sum(question.query.hops == 2 for question in part) == len(part) // 2


def test_more_questions_than_the_world_has_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match=r"640 questions of 1 hop\(s\), but 1600 are asked for"):
        world.split(train=3000, validation=200)


def test_rows_are_in_the_columns_that_verl_reads(world: World, tmp_path: Path) -> None:
    train, validation = world.write_parquet(tmp_path, train=8, validation=4)
    rows = pq.read_table(train).to_pylist()
    questions, _ = world.split(train=8, validation=4)
    for index, (row, question) in enumerate(zip(rows, questions, strict=True)):
        assert row == {
            "data_source": {1: "world_single", 2: "world_two_hop"}[question.query.hops],
            "agent_name": "workflow_r1_agent_loop",
            "prompt": [{"role": "user", "content": question.text}],
            "ability": "question answering",
            "reward_model": {"style": "rule", "ground_truth": {"target": [question.answer]}},
            "extra_info": {"index": index, "split": "train", "id": f"train_{index}", "question": question.text},
        }
    assert {row["extra_info"]["split"] for row in pq.read_table(validation).to_pylist()} == {"validation"}
