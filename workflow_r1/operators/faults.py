"""What went wrong with one request, as one sentence that says what to do and never holds the key."""

import email.utils
import time
from collections.abc import Iterator, Mapping

import aiohttp
import openai

from workflow_r1.operators.errors import OperatorEndpointError
from workflow_r1.operators.settings import OperatorSettings

_PASSING_STATUS = (408, 409, 429)
_EXCERPT_LENGTH = 200


class MalformedReplyError(Exception):
    """The endpoint answered 200 with something that is not a chat completion, such as truncated JSON."""


def endpoint_error(error: Exception, settings: OperatorSettings) -> OperatorEndpointError:
    """The `OperatorEndpointError` for what a request raised."""
    where = f"The operator endpoint {settings.base_url}"
    if isinstance(error, openai.APIStatusError):
        return _status_error(error, where, settings)
    if isinstance(error, MalformedReplyError):
        return OperatorEndpointError(f"{where} sent something that is not a chat completion.", retryable=True)
    # The aiohttp transport reports every connection fault as a timeout, so the cause decides.
    causes = list(_chain(error))
    if any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes):
        sentence = f"{where} cannot be reached: check that it runs and that OPERATOR_BASE_URL is right."
    elif isinstance(error, TimeoutError) or any(isinstance(cause, aiohttp.ServerTimeoutError) for cause in causes):
        sentence = f"{where} did not answer in time."
    else:
        sentence = f"{where} dropped the connection."
    return OperatorEndpointError(sentence, retryable=True, outage=True)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait by the `Retry-After` header (RFC 9110: seconds or a date), or None.

    Args:
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


def _status_error(error: openai.APIStatusError, where: str, settings: OperatorSettings) -> OperatorEndpointError:
    status, said = error.status_code, _excerpt(error, settings)
    if status in (401, 403):
        sentence = f"{where} refused the key ({status}): set OPERATOR_API_KEY to a key that it accepts."
    elif status == 404:
        sentence = (
            f"{where} does not serve the model {settings.model!r} (404{said}): check OPERATOR_MODEL_NAME, "
            "and that OPERATOR_BASE_URL ends where /chat/completions begins."
        )
    else:
        sentence = f"{where} answered {status}{said}."
    return OperatorEndpointError(
        sentence,
        retryable=status in _PASSING_STATUS or status >= 500,
        outage=status >= 500,
        retry_after=retry_after(error.response.headers),
        status=status,
    )


def _excerpt(error: openai.APIStatusError, settings: OperatorSettings) -> str:
    message = error.body.get("message") if isinstance(error.body, dict) else None
    if not isinstance(message, str) or not message.strip():
        return ""
    # Some endpoints repeat the key in what they say about it.
    message = " ".join(message.replace(settings.api_key.get_secret_value(), "***").split()).rstrip(".")
    return ": " + (message if len(message) <= _EXCERPT_LENGTH else message[:_EXCERPT_LENGTH] + "...")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
