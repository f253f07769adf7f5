"""What a service says is wrong, in whatever shape it says it: JSON of many kinds, a web page, plain text."""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

_TEXTS = ("error", "errors", "message", "detail", "msg", "error_message", "error_msg", "status_msg", "reason", "title")
_WRAPPERS = ("base_resp", "fault", "faultstring", "description")
_STATUSES = ("code", "status", "status_code", "http_code")
_DEEPEST, _MOST = 6, 3  # levels that are looked through, and sentences that are taken
_TITLE = re.compile(r"<title[^<>]*>([^<]*)<", re.IGNORECASE)


@dataclass(frozen=True)
class Complaint:
    """The text of an error, and what it says of its kind.

    Attributes:
        text: as it came; it may hold line breaks, and the key.
        status: the HTTP status that stands in the error itself, as of gateways that answer 200.
        code: such as `context_length_exceeded`.
    """

    text: str = ""
    status: int | None = None
    code: str = ""


def read_complaint(content: str) -> Complaint:
    """What stands in the body of a response that is an error."""
    if is_web_page(content):
        title = _TITLE.search(content)
        return Complaint(html.unescape(title[1]) if title else "")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return Complaint(content)
    complaint = complaint_of(value)
    is_known = isinstance(value, dict) and not value.keys().isdisjoint(_TEXTS)
    return complaint if complaint.text or is_known or not value else replace(complaint, text=content)


def complaint_of(value: Any) -> Complaint:
    """The same for JSON that was parsed; without text where it says nothing in any of the usual places."""
    text = "; ".join(islice(dict.fromkeys(text for text in _texts(value) if text.strip()), _MOST))
    objects = list(_objects(value))
    statuses = [status for item in objects for field in _STATUSES if (status := _status(item.get(field)))]
    codes = [item["code"] for item in objects if isinstance(item.get("code"), str)]
    return Complaint(text, statuses[0] if statuses else None, codes[0] if codes else "")


def is_web_page(content: str) -> bool:
    return content[:200].lstrip("\ufeff \t\r\n").startswith("<")


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every message, the outer before the inner."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < _DEEPEST:
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        yield from _located(value) if "loc" in value else _fields(value, depth)


def _fields(value: dict[str, Any], depth: int) -> Iterator[str]:
    for field in (*_TEXTS, *_WRAPPERS):
        yield from _texts(value.get(field), depth + 1)
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):  # what OpenRouter's provider said
        yield read_complaint(metadata["raw"]).text


def _located(value: dict[str, Any]) -> Iterator[str]:
    """FastAPI's: `{"loc": ["body", "max_tokens"], "msg": "Field required"}`."""
    place = value["loc"] if isinstance(value["loc"], list) else [value["loc"]]
    yield f"{'.'.join(map(str, place))}: {value.get('msg', '')}"


def _objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    if depth >= _DEEPEST:
        return
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from _objects(item, depth + 1)


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None
