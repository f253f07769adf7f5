"""Preparing a dataset: verl's columns, the same bytes every time, all files or none, and a card that is true."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from workflow_r1.data import prepare as prepare_module
from workflow_r1.data.errors import DataError
from workflow_r1.data.prepare import prepare_dataset
from workflow_r1.data.selection import Selection
from workflow_r1.data.validation import validate_examples
from workflow_r1.reward import Reward
from workflow_r1.runs.preflight import check_data
from workflow_r1.world.tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real questions are not at {REAL}")
FILES = {"train.parquet", "test.parquet", "card.json", "README.md"}


def source(folder, train=30, test=6):
    folder.mkdir(exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        rows = [{"question": f"{split} question {number}?", "answer": ["x", "y"]} for number in range(count)]
        rows += [{"question": "no answer", "answer": []}]
        (folder / f"nq_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def prepare(sources, folder, tokenizer=None, **selection):
    return prepare_dataset(sources, folder, Selection(**selection), tokenizer)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_rows_have_verls_columns_and_say_where_they_come_from(tmp_path):
    prepare([source(tmp_path / "in")], tmp_path / "out", num_train=10)
    train, test = (pq.read_table(tmp_path / "out" / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    assert len(train) == 10
    assert test[0] == {
        "data_source": "nq",
        "agent_name": "workflow_r1_agent_loop",
        "prompt": [{"role": "user", "content": "test question 0?"}],
        "ability": "question answering",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["x", "y"]}},
        "extra_info": {"index": 0, "split": "test", "id": "nq_0", "question": "test question 0?"},
    }
    assert [row["extra_info"]["index"] for row in train] == list(range(10))


def test_the_launcher_accepts_what_was_prepared(tmp_path):
    from omegaconf import OmegaConf

    prepare([source(tmp_path / "in")], tmp_path / "out")
    files = {
        f"{key}_files": str(tmp_path / "out" / name)
        for key, name in (("train", "train.parquet"), ("val", "test.parquet"))
    }
    check_data(OmegaConf.create({"data": files, "reward": {"reward_manager": {"name": "workflow_r1"}}}))


def test_the_folder_loads_as_a_dataset(tmp_path):
    prepare([source(tmp_path / "in")], tmp_path / "out")
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 30, "test": 6}


def test_what_was_prepared_is_a_source_again(tmp_path):
    first = prepare([source(tmp_path / "in")], tmp_path / "out")
    again = prepare([str(tmp_path / "out")], tmp_path / "again")
    assert again.rows == first.rows == {"train": {"nq": 30}, "test": {"nq": 6}}
    for split in ("train", "test"):
        one, two = (pq.read_table(tmp_path / name / f"{split}.parquet") for name in ("out", "again"))
        assert one == two


def test_the_same_input_and_seed_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    sources = [source(tmp_path / "in")]
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        prepare(sources, tmp_path / name, num_train=20, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one")["train.parquet"] != contents(tmp_path / "three")["train.parquet"]


def test_the_card_is_true(tmp_path):
    tokenizer = build_tokenizer(["test question answer a b"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    prepare([source(tmp_path / "in")], tmp_path / "out", tokenizer=str(tmp_path / "tokenizer"), num_train=20, seed=5)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["rows"] == {"train": {"nq": 20}, "test": {"nq": 6}}
    assert card["selection"]["seed"] == 5
    for record in card["inputs"]:
        assert (
            sha256(tmp_path / "in" / f"nq_{record['split']}.jsonl") == record["sha256"] == sha256(Path(record["file"]))
        )
    for record in card["outputs"]:
        assert sha256(tmp_path / "out" / record["file"]) == record["sha256"]
    assert [(row["split"], row["reason"], row["question"]) for row in card["dropped"]] == [
        ("test", "no gold answer", "no answer"),
        ("train", "no gold answer", "no answer"),
    ]
    rows = pq.read_table(tmp_path / "out" / "test.parquet").to_pylist()
    lengths = [len(tokenizer.encode(row["extra_info"]["question"], add_special_tokens=False)) for row in rows]
    assert card["tokens"]["test"]["question"]["max"] == max(lengths)
    assert card["tokens"]["test"]["answer"] == {"min": 1, "median": 1, "p99": 1, "max": 1}
    readme = (tmp_path / "out" / "README.md").read_text()
    for text in (
        "| train | nq | 20 |",
        "| train | no gold answer | 1 |",
        "- nq_30: no answer",
        card["outputs"][0]["sha256"],
    ):
        assert text in readme


def test_a_run_that_fails_leaves_the_folder_as_it_was(tmp_path):
    prepare([source(tmp_path / "in")], tmp_path / "out")
    before = contents(tmp_path / "out")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "q", "answer": "x"}\n{"question": \n')
    with pytest.raises(DataError, match=r"broken\.jsonl, line 2 is malformed JSON"):
        prepare([str(broken)], tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_run_that_fails_while_writing_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    sources = [source(tmp_path / "in")]
    prepare(sources, tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(prepare_module, "_sha256", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DataError, match=r"Cannot write to .*out: No space left"):
        prepare(sources, tmp_path / "out", seed=2)
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_written_file(tmp_path):
    script = (
        "import os\n"
        "from pathlib import Path\n"
        "from workflow_r1.data import prepare\n"
        "from workflow_r1.data.selection import Selection\n"
        "prepare.rows_by_source = lambda splits: os._exit(9)  # both files are written, none is published\n"
        f"arguments = [{source(tmp_path / 'in')!r}], Path({str(tmp_path / 'out')!r})\n"
        "prepare.prepare_dataset(*arguments, Selection())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 9
    assert list((tmp_path / "out").glob("*.parquet")) == []
    prepare([str(tmp_path / "in")], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == FILES


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write to .*file/out: Not a directory"):
        prepare([source(tmp_path / "in")], tmp_path / "file" / "out")


def test_a_tokenizer_that_cannot_be_used_gets_a_sentence_before_anything_is_read(tmp_path):
    with pytest.raises(DataError, match=r"The tokenizer '.*nowhere' could not be loaded: "):
        prepare(["absent.jsonl"], tmp_path / "out", tokenizer=str(tmp_path / "nowhere"))


@needs_real_data
@pytest.mark.parametrize(
    ("sources", "selection", "rows"),
    [
        # Two bands are called "The The" and "!!!", which no scoring by words can tell from nothing.
        (["nq_hotpotqa"], {}, {"train": {"hotpotqa": 3336, "nq": 1582}, "test": {"hotpotqa": 371, "nq": 176}}),
        (
            ["nq_open.dev.jsonl", "hotpot.dev.json"],
            {"num_train": 2000, "num_test": 200},
            {"train": {"hotpotqa": 1000, "nq": 1000}, "test": {"hotpotqa": 100, "nq": 100}},
        ),
    ],
)
def test_real_questions_are_prepared_byte_for_byte_alike_and_can_all_be_won(tmp_path, sources, selection, rows):
    from workflow_r1.data.layouts import read_examples
    from workflow_r1.data.sources import open_source

    paths = [str(REAL / name) for name in sources]
    card = prepare(paths, tmp_path / "one", **selection)
    prepare(paths, tmp_path / "two", **selection)
    assert card.rows == rows
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for split, counts in rows.items():
        table = pq.read_table(tmp_path / "one" / f"{split}.parquet")
        assert table.num_rows == sum(counts.values())
        assert table.column_names == ["data_source", "agent_name", "prompt", "ability", "reward_model", "extra_info"]
    prepared = open_source(str(tmp_path / "one"))
    training, evaluation = (list(read_examples(files)) for files in (prepared.training, prepared.evaluation))
    assert not {row.question for row in training} & {row.question for row in evaluation}
    assert asyncio.run(validate_examples([*training, *evaluation], Reward())).faults == []
