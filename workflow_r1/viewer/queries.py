"""What is asked of an index: lists, groups, and what changed between two of them."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workflow_r1.records import Text
from workflow_r1.viewer.reading import Entry, read_entry
from workflow_r1.viewer.sources import Part

PAGE = 50
_PATIENCE_SECONDS = 0.6  # for a search through texts; it then says how far it came
_CHUNK = 4_000_000  # bytes
_SELECT = """
SELECT t.*, q.text AS text, f.path AS path, f.source AS source, f.part AS part, f.step AS step
FROM trajectories t JOIN files f ON f.id = t.file LEFT JOIN questions q ON q.id = t.question
"""
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


Whole = Annotated[int, Field(ge=0, le=2**62)]
"""A number that an address may hold: SQLite takes it."""


class Slice(BaseModel):
    """Some of the trajectories of a source; what is None is not asked for.

    Attributes:
        source: the path of a source.
    """

    model_config = ConfigDict(frozen=True)

    source: Path | None = None
    part: Part | None = None
    step: Whole | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        """A field of a form that was left empty."""
        return None if value == "" else value

    def conditions(self) -> Iterator[tuple[str, Any]]:
        if self.source is not None:
            yield "f.source = ?", os.fsencode(self.source)
        if self.part is not None:
            yield "f.part = ?", self.part
        if self.step is not None:
            yield "f.step = ?", self.step


class Filter(Slice):
    """A list's filter and order.

    Attributes:
        data: the data source of the question.
        ended: how the trajectory ended; `fault` finds the lines that are none or count for nothing.
        text: what the question, a thought, a call, an observation or the answer contains, in any case of letters.
    """

    data: Text | None = None
    ended: Text | None = None
    least_reward: float | None = None
    most_reward: float | None = None
    least_calls: Whole | None = None
    operator: Text | None = None
    text: Text | None = None
    sort: str | None = None

    def conditions(self) -> Iterator[tuple[str, Any]]:
        yield from super().conditions()
        if self.data is not None:
            yield "t.data = ?", self.data
        if self.ended == "fault":
            yield "t.fault IS NOT ?", None
        elif self.ended is not None:
            yield "t.ended = ?", self.ended
        if self.least_reward is not None:
            yield "t.reward >= ?", self.least_reward
        if self.most_reward is not None:
            yield "t.reward <= ?", self.most_reward
        if self.least_calls is not None:
            yield "t.calls >= ?", self.least_calls
        if self.operator is not None:
            yield "instr(char(10) || t.operators, char(10) || ? || char(10))", self.operator


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
    where, values = _where(wanted)
    joined = "FROM trajectories t JOIN files f ON f.id = t.file"
    total = connection.execute(f"SELECT count(*) {joined} {where}", values).fetchone()[0]
    order = _ORDERS.get(wanted.sort or "", _ORDERS["newest"])
    limit = PAGE if wanted.text is None else -1
    candidates = connection.execute(f"{_CANDIDATES} {where} ORDER BY {order} LIMIT ? OFFSET ?", (*values, limit, start))
    if wanted.text is None:
        page = candidates.fetchall()
        end = start + len(page)
    else:
        page, searched = _search(candidates, wanted.text, deadline)
        end = start + searched
    return Found([_row(connection, one) for one in page], total, end if end < total else None)


def _row(connection: Connection, candidate: Row) -> Row:
    place = (candidate["file"], candidate["line"])
    return connection.execute(f"{_SELECT} WHERE t.file = ? AND t.line = ?", place).fetchone()


def _search(candidates: Iterator[Row], text: str, deadline: float) -> tuple[list[Row], int]:
    """The first candidates whose texts contain `text`, and how many were looked at."""
    needle = json.dumps(text, ensure_ascii=False)[1:-1].encode().lower()  # as the files have it
    found: list[Row] = []
    searched = 0
    for block in _blocks(candidates):
        content = _bytes(block).lower()
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


def _bytes(block: Sequence[Row]) -> bytes:
    try:
        with Path(os.fsdecode(block[0]["path"])).open("rb") as file:
            file.seek(block[0]["start"])
            return file.read(sum(row["length"] for row in block))
    except OSError:  # gone since it was indexed
        return b""


def _contains(entry: Entry, text: str) -> bool:
    trajectory = entry.trajectory
    if trajectory is None:
        return True  # a broken line is found by what stands in it
    texts = [trajectory.question, trajectory.data_source, *trajectory.golds, entry.fault or ""]
    texts += [part or "" for turn in trajectory.turns for part in (turn.text, turn.answer, turn.error)]
    texts += [part for call in trajectory.calls for part in (call.input, call.output, call.error or "")]
    return any(text in one.lower() for one in texts)


def raw_line(row: Row) -> bytes:
    """The line itself, empty where its file has gone."""
    return _bytes([row])


def read_row(row: Row) -> Entry:
    """What the line holds now."""
    line = raw_line(row)
    return read_entry(line) if line else Entry(None, "The file was written anew a moment ago: load the page again.")


def group(connection: Connection, wanted: Slice, question: int) -> list[Row]:
    """All trajectories of a question in a slice, in the order in which they were written."""
    where, values = _where(wanted, "t.question = ?", question)
    return connection.execute(f"{_SELECT} {where} ORDER BY f.step, f.source, f.part, t.line", values).fetchall()


def one(connection: Connection, wanted: Slice, line: int) -> Row | None:
    """The trajectory in a line of a slice's file."""
    where, values = _where(wanted, "t.line = ?", line)
    return connection.execute(f"{_SELECT} {where}", values).fetchone()


def groups(connection: Connection, wanted: Slice) -> list[Row]:
    """The questions of a slice, where rollouts differ most first: counts, means, and `least` and `most` of `score`."""
    where, values = _where(wanted, "t.question IS NOT ?", None)
    return connection.execute(
        "SELECT t.question AS question, q.text AS text, t.data AS data, count(*) AS rollouts, avg(t.score) AS score, "
        "min(t.score) AS least, max(t.score) AS most, avg(t.reward) AS reward, avg(t.calls) AS calls, "
        "count(t.fault) AS faults, max(t.score) - min(t.score) AS spread "
        "FROM trajectories t JOIN files f ON f.id = t.file JOIN questions q ON q.id = t.question "
        f"{where} GROUP BY t.question ORDER BY spread DESC, min(t.line)",
        values,
    ).fetchall()


def history(connection: Connection, source: Path, question: int) -> list[Row]:
    """How a question went at every step of a source: `part`, `step`, `rollouts`, means of `score` and `calls`."""
    return connection.execute(
        "SELECT f.part AS part, f.step AS step, count(*) AS rollouts, avg(t.score) AS score, avg(t.calls) AS calls "
        "FROM trajectories t JOIN files f ON f.id = t.file WHERE t.question = ? AND f.source = ? "
        "GROUP BY f.part, f.step ORDER BY f.part, f.step",
        (question, os.fsencode(source)),
    ).fetchall()


def steps(connection: Connection, source: Path) -> list[Row]:
    """Every step of a source: `part`, `step`, `rollouts`, means of `score`, `reward` and `calls`, `faults`, `torn`."""
    return connection.execute(
        "SELECT f.part AS part, f.step AS step, count(t.line) AS rollouts, avg(t.score) AS score, "
        "avg(t.reward) AS reward, avg(t.calls) AS calls, avg(t.malformed > 0) AS malformed, count(t.fault) AS faults, "
        "max(f.size - f.read) AS torn, max(f.fault) AS fault "
        "FROM files f LEFT JOIN trajectories t ON t.file = f.id WHERE f.source = ? "
        "GROUP BY f.id ORDER BY f.step, f.part",
        (os.fsencode(source),),
    ).fetchall()


def flips(connection: Connection, before: Slice, after: Slice) -> list[Row]:
    """The questions whose mean score differs, what was lost first: `question`, `text`, `data`, `before`, `after`."""
    scores = (
        "SELECT t.question AS question, min(t.data) AS data, avg(t.score) AS score "
        "FROM trajectories t JOIN files f ON f.id = t.file {} GROUP BY t.question HAVING score IS NOT NULL"
    )
    (first, values), (second, others) = (_where(side, "t.question IS NOT ?", None) for side in (before, after))
    return connection.execute(
        f"WITH a AS ({scores.format(first)}), b AS ({scores.format(second)}) "
        "SELECT a.question AS question, q.text AS text, a.data AS data, a.score AS before, b.score AS after "
        "FROM a JOIN b ON b.question = a.question JOIN questions q ON q.id = a.question "
        "WHERE a.score <> b.score ORDER BY b.score - a.score, q.text",
        (*values, *others),
    ).fetchall()


def endings(connection: Connection, wanted: Slice) -> list[Row]:
    """How a slice's trajectories ended, by data source: `data`, `ended`, `rollouts`, means of `score` and `calls`."""
    where, values = _where(wanted, "t.ended <> ?", "")
    return connection.execute(
        "SELECT t.data AS data, t.ended AS ended, count(*) AS rollouts, avg(t.score) AS score, avg(t.calls) AS calls "
        f"FROM trajectories t JOIN files f ON f.id = t.file {where} GROUP BY t.data, t.ended ORDER BY 1, 3 DESC",
        values,
    ).fetchall()


def operators(connection: Connection) -> list[str]:
    """The names of all operators that were called."""
    sets = connection.execute("SELECT DISTINCT operators FROM trajectories WHERE operators <> ''")
    return sorted({name for row in sets for name in row[0].split("\n") if name})


def choices(connection: Connection, column: str) -> list[str]:
    """The values of `data` or `ended` that there are."""
    assert column in ("data", "ended")
    found = connection.execute(f"SELECT DISTINCT {column} FROM trajectories WHERE {column} <> '' ORDER BY 1")
    return [row[0] for row in found]


def _where(wanted: Slice, *condition: Any) -> tuple[str, tuple]:
    """`WHERE …` and its values, with one condition and its value more where one is given."""
    pairs = [*wanted.conditions(), *([condition] if condition else [])]
    clause = " AND ".join(text for text, _ in pairs)
    return f"WHERE {clause}" if clause else "", tuple(value for _, value in pairs)
