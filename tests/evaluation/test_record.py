"""Results survive whatever stops an evaluation."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.evaluation.record import Record, ResultStore
from workflow_r1.trajectory import EndedBy, Trajectory


def record(id: str, error: str | None = None) -> Record:
    trajectory = Trajectory(question=f"Wo ist {id}?\n", ended_by=EndedBy.ANSWERED)
    return Record(benchmark="nq", id=id, trajectory=trajectory, error=error)


def test_what_was_appended_is_there_next_time(tmp_path: Path) -> None:
    with closing(ResultStore(tmp_path, {"seed": 1})) as store:
        store.append(record("Köln"))
        store.append(record("Ulm", error="down"))
    with closing(ResultStore(tmp_path, {"seed": 1})) as store:
        assert store.records == {("nq", "Köln", 0): record("Köln"), ("nq", "Ulm", 0): record("Ulm", error="down")}


def test_an_error_that_nothing_can_encode_is_kept(tmp_path: Path) -> None:
    with closing(ResultStore(tmp_path, {})) as store:
        store.append(record("a", error="bad \ud83d thing"))
    with closing(ResultStore(tmp_path, {})) as store:
        assert store.records["nq", "a", 0].error == "bad \ufffd thing"


def test_a_failure_is_no_result_until_it_is_asked_again(tmp_path: Path) -> None:
    with closing(ResultStore(tmp_path, {})) as store:
        store.append(record("a", error="down"))
        assert not store.is_done(("nq", "a", 0))
        store.append(record("a"))
        assert store.is_done(("nq", "a", 0))
    with closing(ResultStore(tmp_path, {})) as store:
        assert store.is_done(("nq", "a", 0))


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 600))
def test_a_line_torn_anywhere_costs_only_itself(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    with closing(ResultStore(folder, {})) as store:
        for id in ("a", "b", "c"):
            store.append(record(id))
    file = folder / "results.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - cut])
    left = file.read_bytes().count(b"\n")
    with closing(ResultStore(folder, {})) as store:
        assert [key[1] for key in store.records] == ["a", "b", "c"][:left]
        store.append(record("d"))
    with closing(ResultStore(folder, {})) as store:
        assert [key[1] for key in store.records] == [*["a", "b", "c"][:left], "d"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    with closing(ResultStore(tmp_path, {})) as store:
        store.append(record("a"))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(EvaluationError, match=r"Line 2 of .*results\.jsonl is not a result"):
        ResultStore(tmp_path, {})


def test_results_of_another_run_are_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(ResultStore(tmp_path, {"policy": "a", "seed": 1})) as store:
        store.append(record("a"))
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match=r"another run \(it differs in policy\)"):
        ResultStore(tmp_path, {"policy": "b", "seed": 1})
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with closing(ResultStore(tmp_path, {})), pytest.raises(EvaluationError, match="Another evaluation is writing"):
        ResultStore(tmp_path, {})
    ResultStore(tmp_path, {}).close()
