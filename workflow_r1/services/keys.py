"""Whether a key can be one, before an endpoint or a header refuses it."""

import re

from workflow_r1.services.errors import OperatorConfigError

_PLACEHOLDER = re.compile(
    r"…|\.{3}|\*{3}|redacted|placeholder"  # a key that was shortened or struck out to be shown
    r"|^(\w+[-_])?x{4,}$|your[-_ ]?(api[-_ ]?)?key"
    r"|^\W*(your|insert|enter|replace)(\b|_)|^\W*change[-_ ]?me\W*$"
    r"|^[<{\[].*[>}\]]$"
    r"|^\$|^%\w+%$",  # a variable that nobody expanded
    re.IGNORECASE,
)


def check_key(key: str, variable: str) -> None:
    """A key is one word of visible ASCII: nothing else fits into a header.

    Args:
        variable: the environment variable that holds it.

    Raises:
        OperatorConfigError: it is none; the message names the variable and never holds the key.
    """
    if fault := _fault(key):
        raise OperatorConfigError(f"{variable} {fault}.")


def _fault(key: str) -> str | None:
    if not key.strip():
        return "is blank: set it to a key, or to any word, such as none, for an endpoint that asks for no key"
    if _PLACEHOLDER.search(key.strip(" \t\r\n\"'")):
        return (
            "holds a placeholder in place of a key: set it to the key itself, or to any word, such as none, for an "
            "endpoint that asks for no key"
        )
    if re.search(r"[\r\n]", key):
        return "holds a line break: set it to the key alone, without one before, within or after it"
    if key.strip()[0] in "\"'`" or key.strip()[-1] in "\"'`":
        return "has quotation marks around the key: take them away"
    if re.match(r"\s*(export\s+)?(bearer|authorization|\w*api[-_]?key)\b[\s:=]", key, re.IGNORECASE):
        return "holds more than the key: take away the word before it, which is sent by itself"
    if re.search(r"\s", key):
        return "holds white space: set it to the key alone, without any before, within or after it"
    if strange := next((character for character in key if not "!" <= character <= "~"), None):
        return f"holds the character U+{ord(strange):04X}, which no key has: copy the key again"
    return None
