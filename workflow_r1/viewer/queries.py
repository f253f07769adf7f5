"""What is asked of an index: steps, groups, and what changed between two of them."""

import os
from pathlib import Path
from sqlite3 import Connection, Row

from workflow_r1.viewer.filters import Slice, where

SELECT = """
SELECT t.*, q.text AS text, f.path AS path, f.source AS source, f.part AS part, f.step AS step
FROM trajectories t JOIN files f ON f.id = t.file LEFT JOIN questions q ON q.id = t.question
"""
"""A trajectory's row, with its question's text and its file's place, for a condition to follow."""


def group(connection: Connection, wanted: Slice, question: int) -> list[Row]:
    """All trajectories of a question in a slice, in the order in which they were written."""
    condition, values = where(wanted, "t.question = ?", question)
    return connection.execute(f"{SELECT} {condition} ORDER BY f.step, f.source, f.part, t.line", values).fetchall()


def one(connection: Connection, wanted: Slice, line: int) -> Row | None:
    """The trajectory in a line of a slice's file."""
    condition, values = where(wanted, "t.line = ?", line)
    return connection.execute(f"{SELECT} {condition}", values).fetchone()


def groups(connection: Connection, wanted: Slice) -> list[Row]:
    """The questions of a slice, where rollouts differ most first: counts, means, and `least` and `most` of `score`."""
    condition, values = where(wanted, "t.question IS NOT ?", None)
    return connection.execute(
        "SELECT t.question AS question, q.text AS text, t.data AS data, count(*) AS rollouts, avg(t.score) AS score, "
        "min(t.score) AS least, max(t.score) AS most, avg(t.reward) AS reward, avg(t.calls) AS calls, "
        "count(t.fault) AS faults, max(t.score) - min(t.score) AS spread "
        "FROM trajectories t JOIN files f ON f.id = t.file JOIN questions q ON q.id = t.question "
        f"{condition} GROUP BY t.question ORDER BY spread DESC, min(t.line)",
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
    (first, values), (second, others) = (where(side, "t.question IS NOT ?", None) for side in (before, after))
    return connection.execute(
        f"WITH a AS ({scores.format(first)}), b AS ({scores.format(second)}) "
        "SELECT a.question AS question, q.text AS text, a.data AS data, a.score AS before, b.score AS after "
        "FROM a JOIN b ON b.question = a.question JOIN questions q ON q.id = a.question "
        "WHERE a.score <> b.score ORDER BY b.score - a.score, q.text",
        (*values, *others),
    ).fetchall()


def endings(connection: Connection, wanted: Slice) -> list[Row]:
    """How a slice's trajectories ended, by data source: `data`, `ended`, `rollouts`, means of `score` and `calls`."""
    condition, values = where(wanted, "t.ended <> ?", "")
    return connection.execute(
        "SELECT t.data AS data, t.ended AS ended, count(*) AS rollouts, avg(t.score) AS score, avg(t.calls) AS calls "
        f"FROM trajectories t JOIN files f ON f.id = t.file {condition} GROUP BY t.data, t.ended ORDER BY 1, 3 DESC",
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
