"""A local corpus to search: BM25 over passages, in a folder that a command builds."""

import asyncio
import json
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from workflow_r1.operators.errors import OperatorConfigError
from workflow_r1.operators.request import ChatRequest, Tally
from workflow_r1.operators.search_client import passage_list


class Corpus:
    """Passages that are found by their words: BM25 as Lucene computes it (bm25s, arXiv 2407.03618).

    The index and the passages stay on disk and are mapped into memory. Safe between threads.

    Raises:
        OperatorConfigError: the folder holds no index.
    """

    def __init__(self, folder: Path) -> None:
        import bm25s  # slow to import, and only needed here
        from bm25s.utils.corpus import JsonlCorpus

        try:
            self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
            self._passages = JsonlCorpus(folder / "corpus.jsonl", show_progress=False, verbosity=0)
        except (OSError, ValueError, KeyError, TypeError):
            raise OperatorConfigError(
                f"There is no search index in {folder}: build one with "
                f"'workflow-r1 operators index PASSAGES.jsonl {folder}'."
            ) from None
        self._reading = threading.Lock()  # the passages share one file position

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, query: str, most: int) -> list[tuple[str, str]]:
        """Title and text of the passages that share words with `query`, best first."""
        tokens = _tokenize([query])
        if not tokens[0]:
            return []
        found = self._index.retrieve(tokens, k=min(most, len(self)), show_progress=False)
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


def index_passages(source: Path, folder: Path, progress: bool = False) -> int:
    """Build the index of a JSONL file of passages, and return their number.

    Args:
        source: one JSON object a line, with `text` and perhaps `title`; or, as Pyserini and Search-R1
            write them, with `contents`, whose first line is the title. They are held in memory
            while the index is built.
        folder: is made; an index that is already there is replaced.

    Raises:
        OperatorConfigError: the file cannot be read, a line is no passage, or there is none.
    """
    import bm25s

    passages = list(_read_passages(source))
    if not passages:
        raise OperatorConfigError(f"{source} holds no passages: it needs one JSON object with a 'text' a line.")
    index = bm25s.BM25()
    tokens = _tokenize([f"{passage['title']}\n{passage['text']}" for passage in passages], progress)
    index.index(tokens, show_progress=progress)
    index.save(folder, corpus=passages, show_progress=progress)
    return len(passages)


def _tokenize(texts: list[str], progress: bool = False) -> Any:
    import bm25s

    return bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=progress)


def _read_passages(source: Path) -> Iterator[dict[str, str]]:
    try:
        with source.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _passage(line, f"{source}, line {number},")
    except OSError as error:
        raise OperatorConfigError(f"{source} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise OperatorConfigError(f"{source} is not UTF-8 text.") from None


def _passage(line: str, where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError:
        raise OperatorConfigError(f"{where} is not JSON.") from None
    row = row if isinstance(row, dict) else {}
    title, text = row.get("title") or "", row.get("text")
    if text is None and isinstance(row.get("contents"), str):
        title, _, text = row["contents"].partition("\n")
        title = title.strip('"')
    if not isinstance(text, str) or not isinstance(title, str):
        raise OperatorConfigError(f"{where} is no passage: it needs a JSON object with a 'text' (or 'contents').")
    return {"title": title, "text": text}
