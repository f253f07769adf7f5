"""Where questions come from: a local file or folder, a dataset on the Hugging Face Hub, a benchmark by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workflow_r1.data import hub
from workflow_r1.data.errors import DataError
from workflow_r1.data.files import SUFFIXES

BENCHMARK_HUB = "RUC-NLPIR/FlashRAG_datasets"
BENCHMARKS: dict[str, str] = {
    "nq": "nq/test.jsonl",
    "triviaqa": "triviaqa/test.jsonl",
    "popqa": "popqa/test.jsonl",
    "hotpotqa": "hotpotqa/dev.jsonl",
    "2wikimultihopqa": "2wikimultihopqa/dev.jsonl",
    "musique": "musique/dev.jsonl",
    "bamboogle": "bamboogle/test.jsonl",
}
"""The paper's seven evaluation sets, by the file of `BENCHMARK_HUB` that each is scored on."""

_ALIASES = {**{name: name for name in BENCHMARKS}, "hotpot": "hotpotqa", "2wiki": "2wikimultihopqa"}
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_NO_NAME = {"", "of", *_SPLIT_WORDS, *(suffix.lstrip(".") for suffix in SUFFIXES)}
_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*/[\w.-]+)(/(?P<config>[\w.-]+))?(:(?P<split>[\w.-]+))?")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        origin: a local path, or an `hf://` address.
        data_source: the dataset its questions belong to, where their rows do not say it.
    """

    origin: str
    data_source: str

    @cached_property
    def path(self) -> Path:
        """Where it lies on this machine; a file on the Hub is downloaded first, which raises `DataError`."""
        return hub.download(self.origin) if self.origin.startswith("hf://") else Path(self.origin)


@dataclass(frozen=True)
class Source:
    """The files of a source by split.

    Attributes:
        splits: keyed `train`, `validation` and `test` whatever the source calls them; `all` where it has one part.
    """

    name: str
    splits: Mapping[str, Sequence[SourceFile]]

    @property
    def training(self) -> Sequence[SourceFile]:
        """The training split, or the one part.

        Raises:
            DataError: it has neither.
        """
        return self._first_of("train", "all")

    @property
    def evaluation(self) -> Sequence[SourceFile]:
        """The test split, the validation split where there is none, or the one part.

        Raises:
            DataError: it has none of these.
        """
        return self._first_of("test", "validation", "all")

    @property
    def has_evaluation(self) -> bool:
        return bool({"test", "validation"} & set(self.splits))

    def _first_of(self, *splits: str) -> Sequence[SourceFile]:
        for split in splits:
            if split in self.splits:
                return self.splits[split]
        raise DataError(
            f"{self.name} has no {splits[0]} split, only {', '.join(self.splits)}: name the file itself, or the "
            "split of a Hub dataset as owner/name:split."
        )


def benchmark_name(text: str) -> str | None:
    """The benchmark that a name, in any spelling of its case, stands for."""
    return _ALIASES.get(text.lower())


def open_source(text: str) -> Source:
    """Find the files of a source; none is opened or downloaded yet.

    Args:
        text: a benchmark's name; a local file or folder; or a Hub dataset as `owner/name`, `owner/name/config`,
            either with `:split`.

    Raises:
        DataError: there is no such source, or it cannot be reached.
    """
    if name := benchmark_name(text):
        return Source(name, {"test": [SourceFile(f"hf://datasets/{BENCHMARK_HUB}/{BENCHMARKS[name]}", name)]})
    path = Path(text).expanduser()
    if path.is_dir():
        return Source(text, _folder_splits(path))
    if path.exists():
        return Source(text, {"all": [SourceFile(str(path), _data_source(path.parts[-2:]))]})
    address = _HUB_ID.fullmatch(text)
    if address is None or path.suffix in SUFFIXES:
        raise DataError(
            f"There is no file, folder or benchmark {text!r}: give a path, a Hub dataset as owner/name, or one of "
            f"{', '.join(BENCHMARKS)}."
        )
    return Source(text, _hub_splits(address["id"], address["config"], address["split"]))


def _folder_splits(folder: Path) -> dict[str, list[SourceFile]]:
    """Files by the split that their name, or a folder on the way to them, tells."""
    splits: dict[str, list[SourceFile]] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.suffix not in SUFFIXES or not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        words = [word for part in reversed(parts) for word in _words(part)]
        split = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "all")
        splits.setdefault(split, []).append(SourceFile(str(path), _data_source((folder.name, *parts))))
    if not splits:
        raise DataError(f"The folder {folder} holds no {', '.join(SUFFIXES)} file.")
    if len(splits) > 1:
        splits.pop("all", None)  # such as a card beside train.parquet
    return splits


def _hub_splits(dataset_id: str, config: str | None, split: str | None) -> dict[str, list[SourceFile]]:
    data_source = _data_source([f"{dataset_id.split('/')[1]} {config or ''}"])
    splits = {
        _SPLIT_WORDS.get(name, name): [SourceFile(address, data_source) for address in addresses]
        for name, addresses in hub.split_addresses(dataset_id, config).items()
    }
    if split is None:
        return splits
    wanted = _SPLIT_WORDS.get(split, split)
    if wanted not in splits:
        raise DataError(f"{dataset_id} has no split {split!r}: it has {', '.join(splits)}.")
    return {"all": splits[wanted]}


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.lower())


def _data_source(parts: Sequence[str]) -> str:
    """The dataset that rows which name none belong to, called like the last of the `parts` of a path that has a name.

    Split, ending and numbers are no name; one with a benchmark's in it is that benchmark.
    """
    for part in reversed(parts):
        name = [word for word in _words(part) if word not in _NO_NAME and not word.isdigit()]
        if name:
            return next((_ALIASES[word] for word in name if word in _ALIASES), "_".join(name))
    return "questions"
