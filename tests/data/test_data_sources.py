"""Sources: what a path, a folder or a name leads to."""

from types import SimpleNamespace

import datasets
import pytest

from workflow_r1.data.errors import DataError
from workflow_r1.data.sources import BENCHMARKS, open_source


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


@pytest.mark.parametrize(
    ("name", "data_source"),
    [
        ("nq_open.dev.jsonl", "nq"),
        ("hotpot_dev_distractor_v1.json", "hotpotqa"),
        ("2wikimultihopqa/dev.jsonl", "2wikimultihopqa"),
        ("my-quiz.train.jsonl", "my_quiz"),
        ("quiz/train-00000-of-00002.parquet", "quiz"),
    ],
)
def test_a_files_data_source_is_the_benchmark_or_the_name_that_its_path_tells(tmp_path, name, data_source):
    touch(tmp_path, name)
    [[file]] = open_source(str(tmp_path / name)).splits.values()
    assert file.data_source == data_source
    assert file.path == tmp_path / name


def test_a_folders_files_go_to_the_split_that_their_name_or_folder_tells(tmp_path):
    touch(tmp_path, "nq/train.jsonl", "nq/dev.jsonl", "hotpot/train-00000-of-00001.parquet", "test/0.json")
    touch(tmp_path, "card.json", "README.md", ".partial-x/train.parquet")
    source = open_source(str(tmp_path))
    names = {
        split: [file.path.relative_to(tmp_path).as_posix() for file in files] for split, files in source.splits.items()
    }
    assert names == {
        "train": ["hotpot/train-00000-of-00001.parquet", "nq/train.jsonl"],
        "validation": ["nq/dev.jsonl"],
        "test": ["test/0.json"],
    }
    assert [file.data_source for file in source.training] == ["hotpotqa", "nq"]
    assert source.evaluation == source.splits["test"]


def test_a_folder_without_a_test_split_is_evaluated_on_its_validation_split(tmp_path):
    touch(tmp_path, "train.jsonl", "dev.jsonl")
    source = open_source(str(tmp_path))
    assert source.evaluation == source.splits["validation"]


def test_a_single_file_serves_as_training_and_as_evaluation(tmp_path):
    touch(tmp_path, "test.jsonl")
    source = open_source(str(tmp_path / "test.jsonl"))
    assert source.training == source.evaluation
    assert not source.has_evaluation


def test_a_source_without_a_training_split_says_which_it_has(tmp_path):
    touch(tmp_path, "test.jsonl")
    with pytest.raises(DataError, match="has no train split, only test: name the file itself"):
        _ = open_source(str(tmp_path)).training


def test_an_empty_folder_and_a_missing_path_each_get_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.parquet, \.jsonl, \.json file"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"There is no file, folder or benchmark '.*missing\.jsonl'"):
        open_source(str(tmp_path / "missing.jsonl"))
    with pytest.raises(DataError, match=r"There is no file, folder or benchmark 'data/missing\.jsonl'"):
        open_source("data/missing.jsonl")


def test_the_seven_benchmarks_are_scored_on_the_papers_splits():
    assert {name: open_source(name).evaluation[0].origin for name in BENCHMARKS} == {
        name: f"hf://datasets/RUC-NLPIR/FlashRAG_datasets/{name}/{split}.jsonl"
        for name, split in {
            "nq": "test",
            "triviaqa": "test",
            "popqa": "test",
            "hotpotqa": "dev",
            "2wikimultihopqa": "dev",
            "musique": "dev",
            "bamboogle": "test",
        }.items()
    }
    assert open_source("2Wiki").name == "2wikimultihopqa"


@pytest.mark.parametrize(
    ("text", "config", "splits", "data_source"),
    [
        ("some/quiz", None, {"train": 2, "validation": 1, "extra": 1}, "quiz"),
        ("some/quiz/hotpotqa", "hotpotqa", {"train": 2, "validation": 1, "extra": 1}, "hotpotqa"),
        ("some/quiz:dev", None, {"all": 1}, "quiz"),
        ("some/quiz/nq:extra", "nq", {"all": 1}, "nq"),
    ],
)
def test_a_hub_dataset_is_resolved_by_datasets_with_its_configuration_and_split(
    monkeypatch, text, config, splits, data_source
):
    asked = []

    def load_dataset_builder(*arguments):
        asked.append(arguments)
        files = {"train": ["hf://a", "hf://b"], "dev": ["hf://c"], "extra": ["hf://d"]}
        return SimpleNamespace(config=SimpleNamespace(data_files=files))

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    source = open_source(text)
    assert asked == [("some/quiz", config)]
    assert {split: len(files) for split, files in source.splits.items()} == splits
    assert {file.data_source for files in source.splits.values() for file in files} == {data_source}


def test_a_missing_split_of_a_hub_dataset_names_those_it_has(monkeypatch):
    builder = SimpleNamespace(config=SimpleNamespace(data_files={"train": ["hf://a"]}))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_: builder)
    with pytest.raises(DataError, match="some/quiz has no split 'test': it has train"):
        open_source("some/quiz:test")
