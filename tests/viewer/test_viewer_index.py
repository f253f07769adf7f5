"""The index: it holds every line of every file, however the file came to be, and answers what is asked of it."""

import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.recorded_run import QUESTIONS, add_step, call, make_run, trajectory, turn

from workflow_r1.evaluation.record import Record
from workflow_r1.trajectory import write_jsonl
from workflow_r1.viewer import queries
from workflow_r1.viewer.filters import Filter, Slice
from workflow_r1.viewer.index import Index
from workflow_r1.viewer.reading import raw_lines, read_row
from workflow_r1.viewer.search import find
from workflow_r1.viewer.sources import ViewError, find_sources

TOLD = """{"question":"q","ended_by":"a new reason","mood":"new","turns":[{"text":"t","advantage":0.5}]}"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run((tmp_path / "outputs" / "run").resolve())


def index_of(*roots: Path, updated: bool = True) -> Index:
    index = Index(roots, roots[0].parent / "cache")
    if updated:
        index.update()
    return index


def found(index: Index, **wanted: object) -> list[sqlite3.Row]:
    with index.connect() as connection:
        return find(connection, Filter(**wanted)).rows


def lines(index: Index, **wanted: object) -> list[int]:
    return [row["line"] for row in found(index, **wanted)]


def test_every_trajectory_is_there_with_what_it_is_found_by(run: Path):
    index = index_of(run)
    rows = found(index, step=2)
    assert len(found(index)) == 24
    assert [(row["score"], row["calls"], row["turns"], row["data"]) for row in rows[:3]] == [
        (1.0, 1, 2, "world"),
        (1.0, 1, 2, "world"),
        (0.0, 1, 2, "world"),
    ]
    assert (rows[0]["tokens"], rows[0]["operator_tokens"], rows[0]["seconds"]) == (20, 90, 1.5)
    assert rows[0]["text"] == QUESTIONS[0]


def test_a_step_that_comes_is_taken_in_and_one_that_is_gone_is_forgotten(run: Path):
    index = index_of(run)
    assert not index.update()
    path = add_step(run, 4)
    assert index.update()
    assert len(found(index, step=4)) == 8
    path.unlink()
    assert index.update()
    assert found(index, step=4) == []


def test_a_torn_last_line_waits_until_it_is_whole(run: Path):
    path = run / "trajectories/train/3.jsonl"
    whole = trajectory(question="the last").model_dump_json() + "\n"
    with path.open("a") as file:
        file.write(whole[:40])
    index = index_of(run)
    assert len(found(index, step=3)) == 8
    with index.connect() as connection:
        assert [row["torn"] for row in queries.steps(connection, run)] == [0, 0, 40]
    with path.open("a") as file:
        file.write(whole[40:])
    index.update()
    assert found(index, text="the last")[0]["line"] == 9


def test_a_file_that_a_resumed_run_writes_anew_is_read_anew(run: Path):
    index = index_of(run)
    path = run / "trajectories/train/3.jsonl"
    longer = [trajectory(question="another " + "q" * 99) for _ in range(20)]
    path.unlink()
    write_jsonl(path, longer)
    index.update()
    assert {row["text"] for row in found(index, step=3)} == {longer[0].question}
    path.write_bytes(b"")  # in place
    index.update()
    assert found(index, step=3) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 2400), max_size=4))
def test_however_a_file_grows_every_line_is_there_once_and_in_order(tmp_path: Path, cuts: list[int]):
    content = "".join(trajectory(f"question {number} é").model_dump_json() + "\n" for number in range(5)).encode()
    path = tmp_path / "run/trajectories/train/1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    index = index_of(tmp_path / "run")
    for start, end in pairwise([0, *sorted(cuts), len(content)]):
        with path.open("ab") as file:
            file.write(content[start:end])
        index.update()
    rows = found(index)
    assert [(row["line"], row["text"]) for row in rows] == [(n + 1, f"question {n} é") for n in range(5)]
    assert b"".join(raw_lines([row]) for row in rows) == content


BROKEN = ["", "{", "[]", "null", '{"question": 1}', "\x00\x00", '{"question":"q","ended_by":"answered","turns":[{}]}']


@pytest.mark.parametrize("line", [*BROKEN, "[" * 100_000], ids=lambda line: line[:8])
def test_a_broken_line_is_shown_as_that_and_hides_none(run: Path, line: str):
    path = run / "trajectories/train/3.jsonl"
    path.write_text(line + "\n" + path.read_text())
    index = index_of(run)
    faulty = found(index, step=3, ended="fault")
    assert [row["line"] for row in faulty] == [1]
    assert faulty[0]["fault"].startswith("This line is no trajectory: ")
    assert len(found(index, step=3)) == 9
    assert raw_lines(faulty) == line.encode() + b"\n"


def test_what_another_version_wrote_is_read_with_all_its_fields(run: Path):
    (run / "trajectories/train/9.jsonl").write_text(TOLD + "\n" + '{"question":"older"}\n')
    newer, older = found(index_of(run), step=9)
    read = read_row(newer).trajectory
    assert read is not None
    assert (read.ending, read.model_extra, read.turns[0].model_extra) == (
        "a new reason",
        {"mood": "new"},
        {"advantage": 0.5},
    )
    assert (older["ended"], older["reward"], newer["tokens"], newer["seconds"]) == ("", None, None, None)


def test_a_number_that_sqlite_cannot_hold_stops_nothing(run: Path):
    huge = trajectory("huge", True, turn(calls=[call().model_copy(update={"prompt_tokens": 10**30})]))
    write_jsonl(run / "trajectories/train/9.jsonl", [huge])
    (run / "trajectories/train/99999999999999999999999.jsonl").write_text("")
    assert len(found(index_of(run), step=9)) == 1


def test_an_unreadable_file_is_said_to_be(run: Path):
    (run / "trajectories/train/8.jsonl").mkdir()
    with index_of(run).connect() as connection:
        faults = [row["fault"] for row in queries.steps(connection, run) if row["step"] == 8]
    assert faults == ["It cannot be read: Is a directory."]


def test_an_evaluation_and_what_it_could_not_serve(tmp_path: Path):
    folder = tmp_path / "comparison" / "mine"
    folder.mkdir(parents=True)
    records = [
        Record(benchmark="nq", id="1", trajectory=trajectory()),
        Record(benchmark="nq", id="2", error="The endpoint is gone."),
    ]
    (folder / "results.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    index = index_of(tmp_path / "comparison")
    assert [source.name for source in find_sources(index.roots)] == ["mine"]
    assert [(row["part"], row["score"], row["fault"]) for row in found(index)] == [
        ("eval", 1.0, None),
        ("eval", None, "The endpoint is gone."),
    ]


def test_nothing_outside_the_named_folders_is_read(run: Path, tmp_path: Path):
    secret = tmp_path / "7.jsonl"
    write_jsonl(secret, [trajectory(question="secret")])
    (run / "trajectories/train/7.jsonl").symlink_to(secret)
    outside = make_run(tmp_path / "elsewhere")
    (run.parent / "linked").symlink_to(outside)
    index = index_of(run.parent)
    assert found(index, step=7) == []
    assert [source.path for source in find_sources(index.roots)] == [run]


def test_a_cache_that_is_broken_is_made_again(run: Path):
    index = index_of(run)
    for file in (run.parent / "cache").iterdir():
        file.write_bytes(b"no database" * 1000)
    assert len(found(index_of(*index.roots))) == 24


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"least_reward": 1.0}, [1, 2, 5, 6]),
        ({"most_reward": 0.0}, [3, 4, 7, 8]),
        ({"operator": "AnswerGenerate"}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"operator": "Answer"}, []),
        ({"least_calls": 2}, []),
        ({"data": "world", "ended": "answered", "text": "NOBODY"}, [3, 4, 7, 8]),
        ({"text": "operator_seconds"}, []),  # a field's name is no text
        ({"text": "%"}, []),
        ({"sort": "-reward", "text": "dostex"}, [7, 8, 5, 6]),
    ],
)
def test_filters(run: Path, wanted: dict, expected: list[int]):
    assert lines(index_of(run), step=2, **wanted) == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_is_found_as_it_was_written(tmp_path: Path, text: str):
    folder = tmp_path / "run"
    path = folder / "trajectories/train/1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_jsonl(path, [trajectory(), trajectory(QUESTIONS[0], True, turn(calls=[call(output=f"x{text}y")]))])
    assert 2 in lines(index_of(folder), text=text)


def test_what_was_lost_and_won_between_two_steps(run: Path):
    index = index_of(run)
    step = {number: Slice(source=run, part="train", step=number) for number in (1, 3)}
    with index.connect() as connection:
        rows = queries.flips(connection, step[1], step[3])
        assert [(row["text"], row["before"], row["after"]) for row in rows] == [
            (question, 0.25, 0.75) for question in sorted(QUESTIONS)
        ]
        assert queries.flips(connection, step[1], step[1]) == []


def test_another_view_of_the_same_folder_reads_it_no_second_time(run: Path, monkeypatch: pytest.MonkeyPatch):
    index_of(run)
    monkeypatch.setattr("workflow_r1.viewer.index.read_entry", None)
    assert len(found(index_of(run))) == 24


def test_paths_that_are_no_text(tmp_path: Path):
    folder = make_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")), steps=1)
    assert len(found(index_of(folder), source=folder)) == 8
    assert json.dumps(len(find_sources([folder]))) == "1"


def test_two_views_at_once_share_an_index(run: Path):
    views = [index_of(run, updated=False) for _ in range(4)]
    with ThreadPoolExecutor() as threads:
        for step in range(4, 10):
            add_step(run, step)
            list(threads.map(Index.update, views))
    assert [len(found(view, step=step)) for view in views for step in (3, 9)] == [8] * 8


def test_a_cache_that_cannot_be_written_is_named(run: Path):
    folder = run.parent / "cache"
    index_of(run)
    [file] = folder.glob("*.sqlite")
    file.unlink()
    file.mkdir()
    with pytest.raises(ViewError, match=r"The index .*sqlite cannot be written .* set XDG_CACHE_HOME"):
        index_of(run)
