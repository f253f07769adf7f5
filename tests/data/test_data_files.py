"""Rows of files: every format, and what is said about a broken one."""

import bz2
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_r1.data import json_list
from workflow_r1.data.errors import DataError
from workflow_r1.data.files import column_names, read_rows
from workflow_r1.data.json_list import MalformedJson, iterate_json_list

ROWS = [{"question": "who?", "answer": ["Ann", "Anna"]}, {"question": "où ?", "answer": ["là"]}]


def write(path, kind):
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "list":
        path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    elif kind == "windows":
        path.write_text("\ufeff" + "\r\n".join(map(json.dumps, ROWS)), encoding="utf-8", newline="")
    else:
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["parquet", "list", "lines", "windows"])
def test_every_format_gives_the_same_rows_whatever_the_file_is_called(tmp_path, kind):
    path = write(tmp_path / "questions.data", kind)
    assert list(read_rows(path)) == ROWS
    assert column_names(path) == ["question", "answer"]


def test_only_the_wanted_columns_of_a_parquet_file_are_read(tmp_path):
    path = write(tmp_path / "a.parquet", "parquet")
    assert list(read_rows(path, ["question"])) == [{"question": "who?"}, {"question": "où ?"}]


def test_columns_are_those_of_all_first_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "who?"}\n{"question": "where?", "answer": "here"}\n', encoding="utf-8")
    assert column_names(path) == ["question", "answer"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1}\n{"a": \n', 2),
        ('{"a": 1}\n\n[1]\n', 3),
        ('[{"a": 1},\n {"a": }]', 2),
        ('[\n{"a": 1}\n{"a": 2}]', 3),
        ('[{"a": 1},\n\n', 3),
        ('[{"a": 1},\n 7]', 2),
        ('[{"a": 1}]\n[{"a": 2}]', 2),
        ('[{"a": 1},\n]', 2),
        ('[{"a": "never closed\n', 1),
        ('{"a": 1}\n{"a": ' + "9" * 5000 + "}", 2),
        ('[{"a": 1},\n{"a": ' + "9" * 5000 + "}]", 2),
        ('{"a": 1}\n{"a": ' + "[" * 9000 + "]" * 9000 + "}", 2),
        ('[{"a": 1},\n{"a": ' + "[" * 9000 + "]" * 9000 + "}]", 2),
    ],
)
def test_malformed_json_is_named_by_file_and_line(tmp_path, text, line):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"broken\.json, line {line} is malformed JSON: "):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PAR1 and then nothing of the kind", "is a damaged Parquet file"),
        (b'{"question": "\xe9"}', "is neither Parquet nor JSON in UTF-8"),
        (b"\x00\x00", r"is neither Parquet nor JSON in UTF-8: it begins with '\\x00"),
        (b"question,answer\nq,x\n", "it begins with 'question,answer'"),
        (b"", "is empty"),
        (gzip.compress(b"{}", mtime=0), "is compressed with gzip: unpack it"),
        (b"(\xb5/\xfd", "is compressed with zstd: unpack it"),
        (lzma.compress(b"{}"), "is compressed with xz: unpack it"),
        (bz2.compress(b"{}"), "is compressed with bzip2: unpack it"),
        (b"PK\x03\x04", "is a ZIP archive: unpack it"),
        ("{}".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        (b"\n<!DOCTYPE html>", "is a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer and not the file itself"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_an_unreadable_file_is_said_to_be_so(tmp_path, content, reason):
    path = tmp_path / "a.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        list(read_rows(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(
    st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=3), max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 20),
)
def test_a_json_list_is_the_same_however_small_the_pieces_that_it_is_read_in(items, indent, ascii_only, chunk):
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        assert [item for _, item in iterate_json_list(io.StringIO(text))] == items


@given(st.text(alphabet='[]{},:"1\\u \n', max_size=12), st.integers(1, 5))
def test_only_json_lists_are_accepted(text, chunk):
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        if isinstance(expected, list):
            assert [item for _, item in iterate_json_list(io.StringIO(text))] == expected
        else:
            with pytest.raises(MalformedJson):
                list(iterate_json_list(io.StringIO(text)))


def test_a_line_number_counts_from_the_start_of_the_file_in_every_piece(monkeypatch):
    monkeypatch.setattr(json_list, "_CHUNK", 5)
    text = "[\n" + ",\n".join(f'{{"row": {row}}}' for row in range(50)) + "\n]"
    assert [(line, item["row"]) for line, item in iterate_json_list(io.StringIO(text))] == [
        (row + 2, row) for row in range(50)
    ]
