"""A local corpus to search: BM25 over passages, in a folder that a command builds."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from workflow_r1.data.errors import DataError, RowError
from workflow_r1.data.files import read_rows
from workflow_r1.data.golds import read_text
from workflow_r1.services.errors import OperatorConfigError
from workflow_r1.services.request import ChatRequest, Tally
from workflow_r1.services.search_client import passage_list
from workflow_r1.system.files import made_whole

_MANIFEST = "manifest.json"
_COLUMNS = ("title", "text", "contents")


class _Manifest(BaseModel):
    """What a whole index consists of; written last.

    Attributes:
        format: how passages become words (`words.py`) and files; an index of another format is built anew.
        files: bytes of each file by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    passages: int
    files: dict[str, int]


class Corpus:
    """Passages that are found by their words: BM25 as Lucene computes it (bm25s, arXiv 2407.03618).

    The index and the passages stay on disk and are mapped into memory. Safe between threads.

    Raises:
        OperatorConfigError: the folder holds no index, or one that is not whole.
    """

    def __init__(self, folder: Path) -> None:
        import bm25s  # slow to import, and only needed here
        from bm25s.utils.corpus import JsonlCorpus

        from workflow_r1.services.words import query_words

        command = f"'workflow-r1 operators index PASSAGES.jsonl {folder}'"
        if not (folder / "params.index.json").is_file():
            raise OperatorConfigError(f"There is no search index in {folder}: build one with {command}.")
        try:
            manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
            whole = all((folder / name).stat().st_size == size for name, size in manifest.files.items())
            self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
            self._passages = JsonlCorpus(folder / "corpus.jsonl", show_progress=False, verbosity=0)
            whole = whole and len(self) == manifest.passages == self._index.scores["num_docs"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise OperatorConfigError(
                f"The search index in {folder} is not whole, or of an older version: build it again with {command}."
            )
        self._words = query_words
        self._reading = threading.Lock()  # the passages share one file position

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, query: str, most: int) -> list[tuple[str, str]]:
        """Title and text of the passages that share words with `query`, best first."""
        words = self._words(query)
        if not words:
            return []
        found = self._index.retrieve([words], k=min(most, len(self)), show_progress=False)
        numbers = [int(number) for number, score in zip(found.documents[0], found.scores[0], strict=True) if score > 0]
        with self._reading:
            passages = [self._passages[number] for number in numbers]
        return [(passage["title"], passage["text"]) for passage in passages]


class CorpusClient:
    """Searches a `Corpus` for the last message of a request."""

    def __init__(self, corpus: Corpus, results: int) -> None:
        self._corpus, self._results = corpus, results

    async def complete(self, request: ChatRequest, tally: Tally) -> str:
        """Titles and texts, best first. Calls no service, so nothing can fail."""
        query = request.messages[-1]["content"]
        return passage_list(await asyncio.to_thread(self._corpus.search, query, self._results))

    async def aclose(self) -> None:
        pass


@lru_cache(maxsize=1)
def open_corpus(folder: Path) -> Corpus:
    """The process's one `Corpus` of a folder."""
    return Corpus(folder)


class Indexed(NamedTuple):
    """How many passages an index has, and how many of them have no word to be found by."""

    passages: int
    unsearchable: int


def index_passages(source: Path, folder: Path, progress: bool = False) -> Indexed:
    """Build the index of a file of passages: all of it, or, after a failure, what was there before.

    Args:
        source: JSON Lines, a JSON list or Parquet, of objects with `text` and perhaps `title`; or, as Pyserini and
            Search-R1 write them, with `contents`, whose first line is the title. They are held in memory while the
            index is built.
        folder: is made; an index that is already there is replaced.

    Raises:
        OperatorConfigError: the file cannot be read, a row is no passage, there is nothing to search, or the folder
            cannot be written to.
    """
    import bm25s
    from bm25s.tokenization import Tokenized

    from workflow_r1.services.words import passage_words

    try:
        passages = [
            _passage(row, f"{source}, row {number:,} (the first is 0),")
            for number, row in enumerate(read_rows(source, _COLUMNS))
        ]
    except DataError as error:
        raise OperatorConfigError(str(error)) from None
    vocabulary: dict[str, int] = {}
    words = [
        [
            vocabulary.setdefault(word, len(vocabulary))
            for word in passage_words(f"{passage['title']}\n{passage['text']}")
        ]
        for passage in passages
    ]
    if not vocabulary:
        raise OperatorConfigError(
            f"{source} holds no passages with a word to search for: it needs objects with a 'text' of more than "
            "stop words and punctuation."
        )
    index = bm25s.BM25()
    index.index(Tokenized(ids=words, vocab=vocabulary), show_progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"), _partial(folder) as partial:
            # Without the last argument bm25s leaves out what it cannot store, and all numbers after it are wrong.
            index.save(partial, corpus=passages, show_progress=progress, raise_on_serialization_error=True)
            _publish(partial, folder, len(passages))
    except OSError as error:
        raise OperatorConfigError(f"Cannot write the search index to {folder}: {error.strerror or error}.") from None
    return Indexed(len(passages), sum(not found for found in words))


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder for unfinished files, of which a build that was killed leaves none behind for good."""
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, folder: Path, passages: int) -> None:
    """Move finished files into place; while the manifest is away, there is no index."""
    (folder / _MANIFEST).unlink(missing_ok=True)
    files = {path.name: path.stat().st_size for path in partial.iterdir()}
    for name in files:
        (partial / name).replace(folder / name)
    with made_whole(folder / _MANIFEST) as manifest:
        manifest.write_text(_Manifest(passages=passages, files=files).model_dump_json(), encoding="utf-8")


def _passage(row: dict[str, Any], where: str) -> dict[str, str]:
    """A title and a text.

    Raises:
        OperatorConfigError: the row has no text, or it cannot be stored.
    """
    title, text = row.get("title"), row.get("text")
    try:
        if text in (None, "") and isinstance(contents := row.get("contents"), str):
            title, _, text = contents.partition("\n")
            title = title.strip('"')
        if text is not None:
            return {"title": read_text(title), "text": read_text(text)}
    except RowError as error:
        raise OperatorConfigError(f"{where} has {error}.") from None
    raise OperatorConfigError(f"{where} is no passage: it needs an object with a 'text' (or 'contents').")
