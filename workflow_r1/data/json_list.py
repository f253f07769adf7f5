"""A JSON list read item by item: HotpotQA's training file is 566 MB, and one question of it is needed at a time.

ijson is as fast (its C backend 112 MB in 0.91 s, this in 0.94 s), and refuses integers beyond 64 bits, changes halves
of surrogate pairs, takes an object for an empty list, and does not say in which line a fault is.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK = 1 << 20
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
# A value that the window cuts fails to decode within this many characters of the window's end (`\\u12`, `tru`).
_CUT = 12


class MalformedJson(ValueError):
    """Text that is not a JSON list: what is wrong, and in which line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def json_fault(error: ValueError | RecursionError) -> str:
    """What is wrong, as Python's `json` found it."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has too many digits"


def iterate_json_list(file: TextIO) -> Iterator[tuple[int, Any]]:
    """The `(line, item)` of a JSON list, holding one piece of the file at a time.

    Raises:
        MalformedJson: the text is not a JSON list.
    """
    window = _Window(file)
    window.take("[")
    last = window.take("]") if window.peek() == "]" else ""
    while last != "]":
        yield window.decode()
        last = window.take(",]")
    if window.peek():
        raise MalformedJson(window.line, "there is more after the list")


class _Window:
    """The part of the file that is being decoded."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._position = 0
        self.line = 1

    def peek(self) -> str:
        """Move to the next character that is not white space and return it; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._position)
            assert space is not None
            self._move_to(space.end())
            if self._position < len(self._text):
                return self._text[self._position]
            self._text, self._position = self._file.read(_CHUNK), 0
            if not self._text:
                return ""

    def _move_to(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def take(self, allowed: str) -> str:
        """Move past the next character that is not white space, one of `allowed`, and return it."""
        token = self.peek()
        if not token or token not in allowed:
            raise MalformedJson(self.line, f"expected {' or '.join(allowed)}, found {token or 'the end of the file'}")
        self._position += 1
        return token

    def decode(self) -> tuple[int, Any]:
        """The value that comes next, and the line that it starts in."""
        self.peek()
        line = self.line
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except (ValueError, RecursionError) as error:
                if not isinstance(error, json.JSONDecodeError):
                    raise MalformedJson(line, json_fault(error)) from None
                is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _CUT
                # Reading as much again keeps repeated attempts at a long value linear.
                more = self._file.read(max(_CHUNK, len(self._text) - self._position)) if is_cut else ""
                if not more:
                    broken = line + self._text.count("\n", self._position, error.pos)
                    raise MalformedJson(broken, error.msg) from None
                self._text, self._position = self._text[self._position :] + more, 0
                continue
            self._move_to(end)
            return line, value
