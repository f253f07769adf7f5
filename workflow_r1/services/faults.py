"""What went wrong with one request, as one sentence that says what to do and never holds the key."""

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from workflow_r1.records import well_formed
from workflow_r1.services.complaint import Complaint
from workflow_r1.services.completion import ErrorReplyError, MalformedReplyError
from workflow_r1.services.connection_faults import PROXY_WANTS_PASSWORD, connection_fault
from workflow_r1.services.errors import OperatorEndpointError, PromptTooLongError

_PASSING_STATUS = (408, 409, 429)
_NEVER_TOO_LONG = (401, 402, 403, 404, 429)
_EXCERPT_LENGTH = 200
_CONSIDERED = 2_000  # characters of what was said
_PLACEHOLDER_LENGTH = 8  # a shorter key is "none" or "EMPTY" more often than a secret
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size|limit|overflow)|n_ctx|max_model_len"
    r"|(prompt|inputs?|messages?|request)\b.{0,40} too (long|large)|too many (input )?tokens"
    r"|maximum (prompt|input|sequence) length|maximum number of (input )?tokens|range of input length"
    r"|(inputs?|prompt)\b.{0,60} must (have|be) (less than|<=) ?\d|reduce (the length|your (prompt|message|input))"
    r"|exceed\w*.{0,40}(max\w*|limit|number) .{0,20}tokens|input token count",
    re.IGNORECASE,
)
_FIELD = re.compile(r"\b(max_(completion_|new_)?tokens|temperature|top_p|seed|stop)\b")


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
        request_setting: what changes the fields of a request, which models may refuse; None without such a setting.
    """

    service: str
    url: str
    url_setting: str
    key_setting: str
    secret: SecretStr
    model: str | None = None
    request_setting: str | None = None


def request_fault(error: Exception, wording: Wording) -> OperatorEndpointError:
    """The `OperatorEndpointError` for what a request raised, other than for its status."""
    if isinstance(error, ErrorReplyError):
        return _error_reply_fault(error.complaint, wording)
    if isinstance(error, MalformedReplyError):
        sentence = f"{wording.service} sent something that is not a reply{_excerpt(error.said, wording)}."
        if error.is_web_page:
            sentence = (
                f"{wording.service} sent a web page instead of a reply: check that {wording.url_setting} is right; the "
                "address of an API most often ends in /v1."
            )
        return OperatorEndpointError(sentence, retryable=True, in_reply=True)
    fault = connection_fault(error, wording.url, wording.url_setting)
    return OperatorEndpointError(f"{wording.service} {fault.text}.", retryable=not fault.lasting, outage=True)


def status_fault(
    status: int, complaint: Complaint, headers: Mapping[str, str], wording: Wording
) -> OperatorEndpointError:
    """The `OperatorEndpointError` for an HTTP status other than 2xx, and what came with it."""
    said, kind, hint = _excerpt(complaint.text, wording), OperatorEndpointError, ""
    if status in (401, 403):
        # To 401 there is nothing to add; 403 has other reasons too.
        reason = f" (it says{said})" if said and status == 403 else ""
        sentence = f"refused the key ({status}): set {wording.key_setting} to a key that it accepts{reason}."
    elif status == 407:
        sentence = f"{PROXY_WANTS_PASSWORD}."
    elif status == 404 and wording.model:
        sentence = f"{wording.model} (404{said})."
    elif 300 <= status < 400:
        sentence = f"answered {status}. That leads to another address: set {wording.url_setting} to it."
    else:
        sentence = f"answered {status}{said}."
        if _is_too_long(complaint, status):
            kind = PromptTooLongError
        elif status < 500:
            hint = _request_hint(complaint, wording)
    return kind(
        f"{wording.service} {sentence}{hint}",
        retryable=kind is OperatorEndpointError and (status in _PASSING_STATUS or status >= 500),
        outage=kind is OperatorEndpointError and status >= 500,
        retry_after=retry_after(headers),
        status=status,
    )


def _error_reply_fault(complaint: Complaint, wording: Wording) -> OperatorEndpointError:
    if complaint.status is not None:
        fault = status_fault(complaint.status, complaint, {}, wording)
        fault.in_reply = True
        return fault
    sentence = f"{wording.service} sent an error instead of a reply{_excerpt(complaint.text, wording)}."
    if _is_too_long(complaint):
        return PromptTooLongError(sentence, in_reply=True)
    return OperatorEndpointError(sentence + _request_hint(complaint, wording), retryable=True, in_reply=True)


def _is_too_long(complaint: Complaint, status: int = 400) -> bool:
    if status in _NEVER_TOO_LONG:
        return False
    codes = ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length")
    return status == 413 or complaint.code in codes or bool(_TOO_LONG.search(complaint.text[:_CONSIDERED]))


def _request_hint(complaint: Complaint, wording: Wording) -> str:
    """What to do about a model that does not take, say, a temperature other than 1."""
    field = _FIELD.search(complaint.text[:_CONSIDERED])
    if field is None or wording.request_setting is None:
        return ""
    return f" To change {field[0]} or to leave it out, set {wording.request_setting}."


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait by the `Retry-After` header (RFC 9110: seconds or a date), or None.

    Args:
        headers: looked up without regard to case, or with names in lower case.
        now: seconds since the epoch, the clock's by default.
    """
    try:
        if milliseconds := headers.get("retry-after-ms"):  # OpenAI's and Azure's own, and more exact
            seconds = float(milliseconds) / 1e3
        else:
            seconds = _seconds(headers.get("retry-after", ""), time.time() if now is None else now)
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _seconds(value: str, now: float) -> float:
    """Of a number, which may bear a unit, or of a date."""
    date = email.utils.parsedate_tz(value) if "," in value or ":" in value else None
    if date is not None:
        return email.utils.mktime_tz(date) - now
    value = value.strip()
    return float(value.removesuffix("ms")) / 1e3 if value.endswith("ms") else float(value.removesuffix("s"))


def _excerpt(message: str, wording: Wording) -> str:
    message = well_formed(" ".join(_redacted(message, wording.secret.get_secret_value()).split()).rstrip("."))
    if not message:
        return ""
    return ": " + (message if len(message) <= _EXCERPT_LENGTH else message[:_EXCERPT_LENGTH] + "...")


def _redacted(message: str, secret: str) -> str:
    """`message` without the key, which some endpoints repeat in what they say about it.

    A short one goes only where it is quoted as a key: to strike out every "a" spoils the sentence and tells the key.
    """
    if len(secret) >= _PLACEHOLDER_LENGTH:
        return message.replace(secret, "***")
    if not secret:
        return message
    key = re.escape(secret)
    return re.sub(rf"""(?<=['"`]){key}(?=['"`])|(?<=Bearer ){key}(?!\w)""", "***", message)
