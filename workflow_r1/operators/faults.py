"""What went wrong with one request, as one sentence that says what to do and never holds the key."""

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from workflow_r1.operators.connection_faults import PROXY_WANTS_PASSWORD, connection_fault
from workflow_r1.operators.errors import OperatorEndpointError, PromptTooLongError

_PASSING_STATUS = (408, 409, 429)
_EXCERPT_LENGTH = 200
_TOO_LONG = re.compile(r"context.{0,20}(length|window|size)|(prompt|input)\b.{0,20} too long|too many tokens", re.I)


class MalformedReplyError(Exception):
    """The service answered 200 with something that is not what it should be, such as truncated JSON."""


@dataclass(frozen=True)
class Wording:
    """How the faults of a service are put.

    Attributes:
        service: such as "The operator endpoint http://localhost:8000/v1".
        url: its address.
        url_setting: what may be wrong where the service cannot be reached.
        key_setting: what is wrong where it refuses the key.
        secret: the key itself, which services like to repeat.
        model: what is wrong where it knows no such thing (404), as a sentence on the model; None without a model.
    """

    service: str
    url: str
    url_setting: str
    key_setting: str
    secret: SecretStr
    model: str | None = None


def request_fault(error: Exception, wording: Wording) -> OperatorEndpointError:
    """The `OperatorEndpointError` for what a request raised, other than for its status."""
    if isinstance(error, MalformedReplyError):
        return OperatorEndpointError(f"{wording.service} sent something that is not a reply.", retryable=True)
    fault = connection_fault(error, wording.url, wording.url_setting)
    return OperatorEndpointError(f"{wording.service} {fault.text}.", retryable=not fault.lasting, outage=True)


def status_fault(
    status: int, body: Mapping[str, object], headers: Mapping[str, str], wording: Wording
) -> OperatorEndpointError:
    """The `OperatorEndpointError` for an HTTP status other than 2xx; `body` is the error object that came with it."""
    said, kind = _excerpt(body.get("message"), wording), OperatorEndpointError
    if status in (401, 403):
        sentence = f"{wording.service} refused the key ({status}): set {wording.key_setting} to a key that it accepts."
    elif status == 407:
        sentence = f"{wording.service} {PROXY_WANTS_PASSWORD}."
    elif status == 404 and wording.model:
        sentence = f"{wording.service} {wording.model} (404{said})."
    else:
        sentence = f"{wording.service} answered {status}{said}."
        if status in (400, 413, 422) and (body.get("code") == "context_length_exceeded" or _TOO_LONG.search(said)):
            kind = PromptTooLongError
    return kind(
        sentence,
        retryable=status in _PASSING_STATUS or status >= 500,
        outage=status >= 500,
        retry_after=retry_after(headers),
        status=status,
    )


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait by the `Retry-After` header (RFC 9110: seconds or a date), or None.

    Args:
        headers: looked up without regard to case, or with names in lower case.
        now: seconds since the epoch, the clock's by default.
    """
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        date = email.utils.parsedate_tz(value)
        if date is None:
            return None
        seconds = email.utils.mktime_tz(date) - (time.time() if now is None else now)
    return max(0.0, seconds) if seconds < float("inf") else None


def _excerpt(message: object, wording: Wording) -> str:
    if not isinstance(message, str) or not message.strip():
        return ""
    # Some endpoints repeat the key in what they say about it.
    if secret := wording.secret.get_secret_value():
        message = message.replace(secret, "***")
    message = " ".join(message.split()).rstrip(".")
    return ": " + (message if len(message) <= _EXCERPT_LENGTH else message[:_EXCERPT_LENGTH] + "...")
