"""Rows of a Parquet, JSON Lines or JSON file, one at a time."""

import codecs
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from workflow_r1.data.errors import DataError
from workflow_r1.data.json_list import MalformedJson, iterate_json_list, json_fault

Row = dict[str, Any]

SUFFIXES = (".parquet", ".jsonl", ".json")

_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer and not the file itself: fetch that with 'git lfs pull'",
    b"<": "a web page or XML, perhaps what a failed download left: fetch the file again",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"BZh": "compressed with bzip2: unpack it",
    b"PK\x03\x04": "a ZIP archive: unpack it",
    codecs.BOM_UTF16_LE: "UTF-16 text: save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text: save it as UTF-8",
}
"""What other files begin with, and what to do about each."""


def column_names(path: Path) -> list[str]:
    """The columns of a file: a Parquet file's schema, or every key in the first 100 rows of a JSON file.

    Raises:
        DataError: as `read_rows`.
    """
    if is_parquet(path):
        return list(_open_parquet(path).schema_arrow.names)
    return list(dict.fromkeys(key for row in islice(read_rows(path), 100) for key in row))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file, without holding more of it than a piece.

    Args:
        path: Parquet, JSON Lines, or a JSON list of objects; told apart by their content.
        columns: what to read of a Parquet file; None reads all.

    Raises:
        DataError: the file is missing or none of these, or a line of it is malformed.
    """
    if is_parquet(path):
        return _parquet_rows(path, columns)
    return _json_rows(path)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its content; else it is to be read as JSON.

    Raises:
        DataError: it cannot be read, is empty, or is plainly neither: names what it is.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if head.startswith(b"PAR1"):
        return True
    if not head:
        raise DataError(f"{path} is empty.")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for start, what in _FOREIGN.items():
        if text.startswith(start):
            raise DataError(f"{path} is {what}.")
    if text and text[:1] not in b"[{":
        begin = text.decode(errors="replace").splitlines()[0][:40]
        raise DataError(f"{path} is neither Parquet nor JSON in UTF-8: it begins with {begin!r}.")
    return False


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        for batch in _open_parquet(path).iter_batches(batch_size=8192, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # or Python cannot hold a value
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is a damaged Parquet file, fetch or make it again: {str(error).strip().splitlines()[0]}")


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            is_list = next((character for character in iter(lambda: file.read(1), "") if character.strip()), "") == "["
            file.seek(0)
            for line, row in iterate_json_list(file) if is_list else _lines(file):
                if not isinstance(row, dict):
                    raise MalformedJson(line, "expected an object")
                yield row
    except MalformedJson as error:
        raise DataError(f"{path}, line {error.line} is malformed JSON: {error.reason}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is neither Parquet nor JSON in UTF-8.") from None


def _lines(file: TextIO) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MalformedJson(number, json_fault(error)) from None
            yield number, row
