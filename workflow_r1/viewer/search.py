"""Lists of trajectories, page by page: what fits a filter, in an order, with a text in it."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from sqlite3 import Connection, Row

from workflow_r1.viewer.filters import Filter, where
from workflow_r1.viewer.queries import SELECT
from workflow_r1.viewer.reading import Entry, raw_lines, read_row

PAGE = 50
_PATIENCE_SECONDS = 0.6  # for a search through texts; it then says how far it came
_CHUNK = 4_000_000  # bytes
# The files come first, and by their index: then the newest trajectories are found without sorting all of them.
_CANDIDATES = """
SELECT t.file AS file, t.line AS line, t.start AS start, t.length AS length, f.path AS path
FROM files f CROSS JOIN trajectories t ON t.file = f.id
"""
_ORDERS = {
    "newest": "f.step DESC, f.part, f.source, f.id, t.line",
    "reward": "t.reward IS NULL, t.reward DESC",
    "-reward": "t.reward IS NULL, t.reward",
    "calls": "t.calls DESC",
    "tokens": "t.tokens DESC",
    "seconds": "t.seconds DESC",
    "malformed": "t.malformed DESC",
    "question": "t.question",
}
SORTS = tuple(_ORDERS)


@dataclass(frozen=True)
class Found:
    """A page of a list.

    Attributes:
        total: all that fit the filter, its text left aside.
        next: where the next page begins, None where there is none.
    """

    rows: list[Row]
    total: int
    next: int | None


def find(connection: Connection, wanted: Filter, start: int = 0) -> Found:
    """The rows from number `start` on. A search for a text ends with its page or its patience."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    condition, values = where(wanted)
    joined = "FROM trajectories t JOIN files f ON f.id = t.file"
    total = connection.execute(f"SELECT count(*) {joined} {condition}", values).fetchone()[0]
    order = _ORDERS.get(wanted.sort or "", _ORDERS["newest"])
    limit = PAGE if wanted.text is None else -1
    candidates = connection.execute(
        f"{_CANDIDATES} {condition} ORDER BY {order} LIMIT ? OFFSET ?", (*values, limit, start)
    )
    if wanted.text is None:
        page = candidates.fetchall()
        end = start + len(page)
    else:
        page, searched = _search(candidates, wanted.text, deadline)
        end = start + searched
    return Found([_row(connection, one) for one in page], total, end if end < total else None)


def _row(connection: Connection, candidate: Row) -> Row:
    place = (candidate["file"], candidate["line"])
    return connection.execute(f"{SELECT} WHERE t.file = ? AND t.line = ?", place).fetchone()


def _search(candidates: Iterator[Row], text: str, deadline: float) -> tuple[list[Row], int]:
    """The first candidates whose texts contain `text`, and how many were looked at."""
    needle = json.dumps(text, ensure_ascii=False)[1:-1].encode().lower()  # as the files have it
    found: list[Row] = []
    searched = 0
    for block in _blocks(candidates):
        content = raw_lines(block).lower()
        if needle in content:
            offset = 0
            for row in block:
                piece = content[offset : offset + row["length"]]
                offset += row["length"]
                searched += 1
                if needle in piece and _contains(read_row(row), text.lower()):
                    found.append(row)
                    if len(found) == PAGE:
                        return found, searched
        else:
            searched += len(block)
        if time.monotonic() > deadline:
            break
    return found, searched


def _blocks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows whose lines follow each other in a file, to be read at once."""
    block: list[Row] = []
    size = 0
    for row in rows:
        follows = (
            block and row["file"] == block[-1]["file"] and row["start"] == block[-1]["start"] + block[-1]["length"]
        )
        if block and (not follows or size > _CHUNK):
            yield block
            block, size = [], 0
        block.append(row)
        size += row["length"]
    if block:
        yield block


def _contains(entry: Entry, text: str) -> bool:
    trajectory = entry.trajectory
    if trajectory is None:
        return True  # a broken line is found by what stands in it
    texts = [trajectory.question, trajectory.data_source, *trajectory.golds, entry.fault or ""]
    texts += [part or "" for turn in trajectory.turns for part in (turn.text, turn.answer, turn.error)]
    texts += [part for call in trajectory.calls for part in (call.input, call.output, call.error or "")]
    return any(text in one.lower() for one in texts)
