"""What is shown of a configuration: everything but keys."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "(hidden)"

# What a key's name ends in.
_WORDS = r"(api|access|secret|private|auth)[_-]?keys?|tokens?|secrets?|passw(or)?ds?|credentials?|authorization"
_SECRET = re.compile(rf"(^|[_.-])({_WORDS})$", re.IGNORECASE)
_HARMLESS = re.compile(r"(max|min|num|bos|eos|pad|per|batch|response|prompt)\w*tokens?$", re.IGNORECASE)
# In an override, a URL or a note.
_ASSIGNED = re.compile(
    rf"(?P<name>(?<![\w.-])([\w.-]*[_.-])?({_WORDS}))(?P<sign>\s*[=:]\s*)[^\s,;&}}\]]+", re.IGNORECASE
)
_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_ALONE = re.compile(r"\b(sk|hf|ghp|gho|xox[abp]|key)[-_][\w-]{12,}|(?<=Bearer )\S+")


def masked(value: Any) -> Any:
    """A copy in which every value whose name says that it is a key, and what looks like one, is `HIDDEN`."""
    if isinstance(value, Mapping):
        return {name: HIDDEN if _is_secret(str(name), found) else masked(found) for name, found in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [masked(one) for one in value]
    return _masked_text(value) if isinstance(value, str) else value


def _masked_text(text: str) -> str:
    return _ASSIGNED.sub(_hidden, _ALONE.sub(HIDDEN, _IN_URL.sub(HIDDEN, text)))


def _hidden(assigned: re.Match[str]) -> str:
    return f"{assigned['name']}{assigned['sign']}{HIDDEN}" if _names_one(assigned["name"]) else assigned[0]


def _is_secret(name: str, value: Any) -> bool:
    return value is not None and _names_one(name)


def _names_one(name: str) -> bool:
    return bool(_SECRET.search(name)) and not _HARMLESS.search(name)
