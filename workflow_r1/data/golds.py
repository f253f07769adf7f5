"""What counts as a text and as gold answers: one reading for training, `prepare`, `validate` and evaluation alike.

A value has one meaning or none: what could mean two things is a `RowError`, never a guess.
"""

import datetime
import math
import re
from decimal import Decimal
from typing import Any

import numpy as np

from workflow_r1.answers import normalise_answer
from workflow_r1.data.errors import Reason, RowError
from workflow_r1.protocol import parse_turn

# To the end where no quote closes it; with what Python 2 and bytes have before it.
_QUOTED = re.compile(r"(?:\b[uUbB])?(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?)", re.DOTALL)
_WRAPPED = re.compile(r"\w+\((?P<list>\[.*\]|\{.*\})[^\]}]*\)", re.DOTALL)  # array([...]), frozenset({...})
_EMPTY = {"set()", "frozenset()", "dict()", "list()", "tuple()", "deque([])", "()", "<NA>"}
_WORD = re.compile(r"[^\W\d_]+")
_LONG_WORD = re.compile(r"[^\W_]{4}")  # always left: the longest article has three letters
_WORD_OR_NUMBER = re.compile(r"[\w\s]+")
_LITERAL_WORDS = {"None", "null", "nan", "NaN", "True", "true", "False", "false"}
_PUNCTUATION = frozenset("[]{}(),:.+-")
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_NEARLY_TEXT: tuple[tuple[type | tuple[type, ...], Reason], ...] = (
    (bool, Reason.BOOLEAN),
    ((bytes, bytearray), Reason.BYTES),
    (Decimal, Reason.DECIMAL),
    (_DATES, Reason.DATE),
)
_SHOWN_PLAINLY = (Reason.DECIMAL, Reason.DATE)
_MOST_DIGITS = 15  # any decimal number of so many survives as a float; what has more is an artefact


def read_text(value: Any) -> str:
    """A text without the white space around it, or a number as one writes it (`1987.0` is `1987`).

    Returns:
        "" where there is nothing: None, NaN and NaT (which is how pandas writes a missing value), blanks.

    Raises:
        RowError: it is of another type, a number whose digits are an artefact of its storage, or no Unicode.
    """
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise RowError(Reason.NO_UNICODE, value) from None
        return value.strip()
    if isinstance(value, np.generic) and not isinstance(
        value, np.datetime64 | np.timedelta64
    ):  # an int, of nanoseconds
        value = value.item()
    if value is None or (isinstance(value, float | datetime.date | np.datetime64 | np.timedelta64) and value != value):
        return ""
    if isinstance(value, float):
        text = repr(value + 0.0).removesuffix(".0")  # which makes of -0.0 a 0.0
        if math.isinf(value) or "e" in text or sum(map(str.isdigit, text)) > _MOST_DIGITS:
            raise RowError(Reason.NO_PLAIN_NUMBER, value)
        return text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    reason = next((reason for types, reason in _NEARLY_TEXT if isinstance(value, types)), None)
    raise RowError(reason, str(value)) if reason in _SHOWN_PLAINLY else RowError(reason or Reason.NOT_TEXT, value)


def read_golds(value: Any) -> tuple[str, ...]:
    """Gold answers, each once: the texts and numbers of a list, or the one text or number that there is.

    Of a list, blanks and what scoring cannot tell from nothing (`A+`, `!`) are left out where something else is left.
    Every answer that is returned earns the full reward where the policy gives it.

    Raises:
        RowError: there is none, or one is of another type, a list saved as text, or has a protocol tag.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    golds = list(filter(None, map(read_text, value if isinstance(value, list) else [value])))
    if not golds:
        raise RowError(Reason.NO_GOLD)
    for gold in golds:
        if _is_saved_list(gold):
            raise RowError(Reason.SAVED_LIST, gold)
        if "<" in gold and parse_turn(f"<think></think><answer>{gold}</answer>").answer is None:
            raise RowError(Reason.PROTOCOL_TAG, gold)
    answerable = tuple(dict.fromkeys(filter(_is_answerable, golds)))
    if not answerable:
        raise RowError(Reason.UNANSWERABLE, golds[0])
    return answerable


def _is_answerable(gold: str) -> bool:
    """Something visible is left of it after normalisation, as is not of `A+`, `!` or a zero-width space."""
    if _LONG_WORD.search(gold):
        return True
    return any(character.isprintable() and character != " " for character in normalise_answer(gold))


def _is_saved_list(text: str) -> bool:
    """A list, set or object as JSON, Python or numpy writes it: brackets around nothing but literals.

    Round brackets are also how people write `(1984)`, so in them it takes a comma and a quoted text.
    """
    if text in _EMPTY:
        return True
    if text[0] == text[-1] == '"' and (inner := text[1:-1].strip()):  # JSON of a text that is one
        return inner[0] in _CLOSING and _is_saved_list(inner.replace('\\"', '"'))
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped["list"]
    if text[-1:] != _CLOSING.get(text[:1], ""):
        return False
    bare = _QUOTED.sub("", text)
    if bare[-1] != text[-1] or (text[0] == "(" and (bare == text or "," not in bare)):
        return False
    return set(_WORD.findall(bare)) <= _LITERAL_WORDS and _PUNCTUATION.issuperset(_WORD_OR_NUMBER.sub("", bare))
