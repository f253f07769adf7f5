"""An index of trajectory files: where each trajectory lies, and what it is found by. The texts stay in their files."""

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workflow_r1.records import total
from workflow_r1.reward import core_part
from workflow_r1.runs.run_watch import WATCH_FILE
from workflow_r1.runs.stop import STOP_FILE
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.trajectory import Turn
from workflow_r1.viewer.reading import read_entry
from workflow_r1.viewer.sources import TrajectoryFile, ViewError, find_sources, trajectory_files

_VERSION = 1  # of the tables, and of what their columns mean
_BATCH = 500  # lines that become visible at once
_MARK = 256  # bytes before the end that tell whether a file has only grown

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, path BLOB UNIQUE, source BLOB, part TEXT, step INTEGER,
    inode INTEGER DEFAULT 0, modified INTEGER DEFAULT 0, size INTEGER DEFAULT 0,
    read INTEGER DEFAULT 0, lines INTEGER DEFAULT 0, mark INTEGER DEFAULT 0, fault TEXT
);
CREATE INDEX IF NOT EXISTS newest ON files (step DESC, part, source, id);
CREATE TABLE IF NOT EXISTS questions (id INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS trajectories (
    file INTEGER, line INTEGER, start INTEGER, length INTEGER, question INTEGER, data TEXT, ended TEXT, answer TEXT,
    reward REAL, score REAL, turns INTEGER, calls INTEGER, malformed INTEGER, operators TEXT, tokens INTEGER,
    operator_tokens INTEGER, seconds REAL, fault TEXT, PRIMARY KEY (file, line)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_question ON trajectories (question);
"""
_COLUMNS = 18
_LARGEST = 2**63 - 1
_SHORT = 200  # characters of a text that only a list shows


@dataclass(frozen=True)
class Progress:
    """How much of the files is in the index, in bytes."""

    read: int
    size: int


class Index:
    """The index of everything under `roots`, kept in the user's cache between views.

    One thread or process may call `update` while others read; each reader opens a connection of its own.

    Args:
        roots: resolved paths.

    Raises:
        ViewError: the cache cannot be written.
    """

    def __init__(self, roots: Sequence[Path], folder: Path | None = None) -> None:
        self.roots = list(roots)
        named = hashlib.sha256(b"\0".join([str(_VERSION).encode(), *map(os.fsencode, roots)]))
        folder = folder or cache_dir() / "view"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{named.hexdigest()[:16]}.sqlite"
        try:
            self._create()
        except sqlite3.OperationalError as error:
            raise ViewError(
                f"The index {self._path} cannot be written ({error}): free space there, or set XDG_CACHE_HOME to "
                "another folder."
            ) from None
        except sqlite3.DatabaseError:  # it is broken, and can be made again
            for file in folder.glob(f"{self._path.name}*"):
                file.unlink()
            self._create()

    def _create(self) -> None:
        with self.connect() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_TABLES)

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """A connection whose rows are read by name; what was written is committed where the block ends in order."""
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous=OFF")  # it can be made again
            with connection:
                yield connection

    def update(self, wanted: Callable[[TrajectoryFile], bool] = lambda file: True) -> bool:
        """Take in what is new in the files, the newest step first, and forget files that are gone.

        Args:
            wanted: leaves the others for another time.

        Returns:
            whether anything changed.
        """
        changed = False
        known: list[bytes] = []
        with self.connect() as connection:
            pairs = [(source, file) for source in find_sources(self.roots) for file in trajectory_files(source)]
            for source, file in sorted(pairs, key=lambda pair: -pair[1].step):
                known.append(os.fsencode(file.path))
                if not wanted(file):
                    continue
                connection.execute(
                    "INSERT OR IGNORE INTO files (path, source, part, step) VALUES (?, ?, ?, ?)",
                    (known[-1], os.fsencode(source.path), file.part, file.step),
                )
                changed |= _FileUpdate(connection, file.path).run()
            gone = {row["path"]: row["id"] for row in connection.execute("SELECT id, path FROM files")}
            for path in gone.keys() - set(known):
                connection.execute("DELETE FROM trajectories WHERE file = ?", (gone[path],))
                connection.execute("DELETE FROM files WHERE id = ?", (gone[path],))
                changed = True
        return changed

    def version(self) -> str:
        """Another one after each change of what the pages show."""
        with self.connect() as connection:
            read = connection.execute("SELECT count(*), total(read), total(size) FROM files").fetchone()
        beside = [
            file.stat().st_mtime_ns
            for source in find_sources(self.roots)
            for name in ("metrics*.jsonl", STOP_FILE, WATCH_FILE)
            for file in source.path.glob(name)
        ]
        return f"{tuple(read)} {sum(beside)}"

    def progress(self) -> Progress:
        with self.connect() as connection:
            read = connection.execute("SELECT coalesce(sum(read), 0) FROM files").fetchone()[0]
        size = 0
        for source in find_sources(self.roots):
            for file in trajectory_files(source):
                with suppress(OSError):
                    size += file.path.stat().st_size
        return Progress(read, size)


class _FileUpdate:
    """Brings the index up to date with one file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._row = connection.execute("SELECT * FROM files WHERE path = ?", (os.fsencode(path),)).fetchone()

    def run(self) -> bool:
        row = self._row
        try:
            status = self._path.stat()
            state = status.st_ino, status.st_mtime_ns, status.st_size
            if state == (row["inode"], row["modified"], row["size"]) and row["fault"] is None:
                return False
            with self._path.open("rb") as file:
                if not (status.st_size >= row["read"] and _mark(file, row["read"]) == row["mark"]):
                    self._forget()
                self._read(file)
                self._set(inode=state[0], modified=state[1], size=state[2], fault=None)
        except OSError as error:
            fault = f"It cannot be read: {error.strerror or error}."
            if fault == row["fault"]:
                return False
            self._set(fault=fault)
        self._connection.commit()
        return True

    def _forget(self) -> None:
        """The file was written anew."""
        self._connection.execute("DELETE FROM trajectories WHERE file = ?", (self._row["id"],))
        self._set(read=0, lines=0, mark=0)
        self._row = {**self._row, "read": 0, "lines": 0}

    def _read(self, file: BinaryIO) -> None:
        start, number = self._row["read"], self._row["lines"]
        file.seek(start)
        rows = []
        for line in file:
            if not line.endswith(b"\n"):  # it is being written, or the writer was killed
                break
            number += 1
            rows.append(self._summary(number, start, line))
            start += len(line)
            if len(rows) == _BATCH:
                self._insert(rows, start, number, file)
                file.seek(start)
                rows = []
        self._insert(rows, start, number, file)

    def _insert(self, rows: list[tuple], start: int, number: int, file: BinaryIO) -> None:
        holes = ", ".join("?" * _COLUMNS)
        self._connection.executemany(f"INSERT OR REPLACE INTO trajectories VALUES ({holes})", rows)
        self._set(read=start, lines=number, mark=_mark(file, start))
        self._connection.commit()

    def _summary(self, number: int, start: int, line: bytes) -> tuple:
        entry = read_entry(line)
        trajectory = entry.trajectory
        place = (self._row["id"], number, start, len(line))
        if trajectory is None:
            return (*place, None, entry.result.get("benchmark"), *(None,) * (_COLUMNS - 7), entry.fault)
        reward = trajectory.reward
        calls = trajectory.calls
        return (
            *place,
            self._question(trajectory.question),
            trajectory.data_source,
            trajectory.ending,
            None if trajectory.answer is None else trajectory.answer[:_SHORT],
            reward.get("reward"),
            reward.get(core_part(reward)),
            len(trajectory.turns),
            len(calls),
            trajectory.num_malformed,
            "".join(f"{name}\n" for name in dict.fromkeys(call.operator for call in calls)),
            _stored(total(map(_tokens, trajectory.turns))),
            _stored(total(call.tokens if "prompt_tokens" in call.model_fields_set else None for call in calls)),
            total(map(_seconds, trajectory.turns)),
            entry.fault,
        )

    def _question(self, text: str) -> int:
        """A question's number is the same in every index, so that links to it can be shared."""
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        self._connection.execute("INSERT OR IGNORE INTO questions VALUES (?, ?)", (number, text))
        return number

    def _set(self, **values: object) -> None:
        pairs = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE files SET {pairs} WHERE id = ?", (*values.values(), self._row["id"]))


def _tokens(turn: Turn) -> int | None:
    """What the policy sampled, or None where the file does not say."""
    return turn.tokens[1] - turn.tokens[0] if any(turn.tokens) else None


def _seconds(turn: Turn) -> float | None:
    return turn.generate_seconds + turn.operator_seconds if "generate_seconds" in turn.model_fields_set else None


def _stored(number: int | None) -> int | None:
    """As an integer that SQLite holds."""
    return number if number is None else max(-_LARGEST, min(number, _LARGEST))


def _mark(file: BinaryIO, end: int) -> int:
    """A checksum of what comes before `end`."""
    start = max(0, end - _MARK)
    file.seek(start)
    return zlib.crc32(file.read(end - start))
