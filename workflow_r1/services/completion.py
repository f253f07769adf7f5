"""Reading a chat completion, from any server that calls itself OpenAI-compatible.

The operators' client and the policy's share this one reader. It takes what servers are known to send: text in parts,
thoughts apart from the text, usage that is missing or written as text, a stream in place of an object, an error in
place of a reply. What a server does not say is None, never a zero.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.records import well_formed
from workflow_r1.services.complaint import Complaint, complaint_of, is_web_page

_CUT = {
    *("length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "max_output_length", "model_length"),
    *("token_limit", "context_length_exceeded", "context_window_exceeded", "model_context_window_exceeded"),
}
_WITHHELD = {"content_filter", "safety", "sensitive", "recitation", "blocklist", "prohibited_content", "refusal"}
_BROKEN = {"error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource"}
_THOUGHTS = (
    *("reasoning_content", "reasoning", "reasoning_text", "reasoning_details"),
    *("thinking", "thinking_blocks", "thought", "thoughts"),
)
_STREAM = re.compile(r"(?:data|event|id|retry)?:")
_DEEPEST = 8  # levels of parts within parts
_UNSEEN_TOKENS = 32  # more than the stop string and the special tokens that a server leaves out of the text


class MalformedReplyError(Exception):
    """The service answered 200 with something that is not what it should be, such as truncated JSON.

    Attributes:
        is_web_page: it is HTML.
        said: its text, where it is plain text or JSON of a kind that nobody knows.
    """

    def __init__(self, *, is_web_page: bool = False, said: str = "") -> None:
        super().__init__("not a reply")
        self.is_web_page = is_web_page
        self.said = said


class ErrorReplyError(Exception):
    """The service answered 200 with an error in it."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__("an error in place of a reply")
        self.complaint = complaint


@dataclass(frozen=True)
class Completion:
    """One completion as a server sent it.

    Attributes:
        text: most often without the stop string that ended it.
        finish_reason: `stop`, `length`, or what else the server says; None where it says nothing.
        stop_string: the stop string that ended it; "" for the model's own end; None where the server does not tell the
            two apart.
        prompt_tokens: as the server counts them; None where it does not.
        completion_tokens: likewise.
        reasoning: the thoughts that the server took out of the text.
        reasoning_tokens: how many tokens of the completion they are, where the server says so.
        has_tool_calls: the server made (part of) the text into a tool call.
    """

    text: str
    finish_reason: str | None = "stop"
    stop_string: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning: str = ""
    reasoning_tokens: int | None = None
    has_tool_calls: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether the text ended because there was no room for more."""
        return (self.finish_reason or "").lower() in _CUT

    @property
    def is_withheld(self) -> bool:
        """Whether the server's content filter ended the text."""
        return (self.finish_reason or "").lower() in _WITHHELD

    @property
    def hides_thoughts(self) -> bool:
        """Whether the server generated text that it did not send."""
        if self.reasoning_tokens and not self.reasoning and "</think>" not in self.text:
            return True
        # A token has at least a byte, unless it is a control token: a model that is lost writes those without end.
        sent = len(self.text.encode()) + len(self.reasoning.encode())
        return not self.is_cut and (self.completion_tokens or 0) > sent + _UNSEEN_TOKENS


def read_completion(content: str) -> Completion:
    """The completion in the body of a response.

    Raises:
        MalformedReplyError: there is none.
        ErrorReplyError: there is an error in its place.
    """
    reply = _parsed(content)
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    message = _message(choice)
    error = reply.get("error") or (choice or {}).get("error")
    if error or choice is None or message is None:
        raise _no_reply(reply, error, content)
    finish_reason = _finish_reason(choice.get("finish_reason"))
    if (finish_reason or "").lower() in _BROKEN:
        raise ErrorReplyError(Complaint(f"the reply ended by {finish_reason!r}"))
    text, reasoning = _text_and_thoughts(message)
    text = text or _text(message.get("refusal"))
    usage = _object(reply.get("usage"))
    completion_tokens = _count(usage, "completion_tokens", "output_tokens")
    return Completion(
        text=well_formed(text),
        finish_reason=finish_reason,
        stop_string=_stop_string(choice),
        # A prompt takes tokens, and so does a text: servers that do not count them write 0.
        prompt_tokens=_count(usage, "prompt_tokens", "input_tokens") or None,
        completion_tokens=None if completion_tokens == 0 and (text or reasoning) else completion_tokens,
        reasoning=well_formed(reasoning),
        reasoning_tokens=_count(_object(usage.get("completion_tokens_details")), "reasoning_tokens"),
        has_tool_calls=bool(message.get("tool_calls") or message.get("function_call")),
    )


def read_token_ids(content: str) -> list[int]:
    """The sampled tokens in the body of a response of vLLM, which was asked to return them.

    Raises:
        MalformedReplyError, ErrorReplyError: as `read_completion`.
    """
    reply = _parsed(content)
    match reply.get("choices"):
        case [{"token_ids": [*ids]}, *_] if all(isinstance(token, int) for token in ids):
            return ids
    raise _no_reply(reply, reply.get("error"), content)


def read_models(content: str) -> dict[str, int | None]:
    """The models that a server lists, and the length of each one's context, where it says so (vLLM, SGLang).

    Raises:
        MalformedReplyError, ErrorReplyError: as `read_completion`.
    """
    reply = _parsed(content)
    listed = reply.get("data")
    if not isinstance(listed, list):
        raise _no_reply(reply, reply.get("error"), content)
    models = [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
    return {model["id"]: _count(model, "max_model_len") or None for model in models}


def _parsed(content: str) -> dict[str, Any]:
    content = content.lstrip("\ufeff \t\r\n")
    if _STREAM.match(content):
        return _joined(content)
    try:
        reply, _ = json.JSONDecoder().raw_decode(content)  # a reply that comes twice is one
    except (ValueError, RecursionError):
        is_text = not content.startswith(("{", "[", '"'))
        raise MalformedReplyError(is_web_page=is_web_page(content), said=content if is_text else "") from None
    if isinstance(reply, list) and len(reply) == 1:  # so Gemini's errors come
        reply = reply[0]
    if not isinstance(reply, dict):
        raise MalformedReplyError(said=reply if isinstance(reply, str) else content if reply else "")
    return reply


def _no_reply(reply: dict[str, Any], error: Any, content: str) -> ErrorReplyError | MalformedReplyError:
    """What to raise for an object that is none: what it says, or all of it where it is of no known kind."""
    said = complaint_of(error) if complaint_of(error).text else complaint_of(reply)
    if error or said.text:
        return ErrorReplyError(said)
    is_known = not reply or "choices" in reply or "data" in reply
    return MalformedReplyError(said="" if is_known else content)


def _joined(stream: str) -> dict[str, Any]:
    """The reply that was streamed though nobody asked for a stream, as one object."""
    texts: dict[str, str] = {"content": "", "reasoning": ""}
    message: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    usage, is_whole = None, False
    for event in _events(stream):
        if event.get("error") or ("choices" not in event and complaint_of(event).text):
            return event
        usage = event.get("usage") or usage
        choices = event.get("choices")
        part = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        choice.update({field: value for field, value in part.items() if value is not None})
        delta = _message(part) or {}
        message["tool_calls"] = delta.get("tool_calls") or message.get("tool_calls")
        text, thoughts = _text_and_thoughts(delta)
        texts["content"] += text
        texts["reasoning"] += thoughts
        is_whole = is_whole or part.get("finish_reason") is not None
    if not is_whole and not re.search(r"^data:\s*\[DONE\]", stream, re.MULTILINE):
        raise MalformedReplyError  # it broke off
    return {"choices": [{**choice, "message": {**message, **texts}}], "usage": usage}


def _finish_reason(value: Any) -> str | None:
    """A word for why a text ended; some servers send an object around it, some a constant's whole name."""
    value = _object(value).get("type", value)
    if not isinstance(value, str):
        return None
    return well_formed(re.sub("^finish_?reason[_.]", "", value, flags=re.IGNORECASE))


def _events(stream: str) -> Iterator[dict[str, Any]]:
    for line in re.split(r"\r?\n|\r", stream):  # and not where splitlines() does: U+2028 may stand in the text
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data and data != "[DONE]":
            try:
                event = json.loads(data)
            except (ValueError, RecursionError):
                raise MalformedReplyError from None
            if isinstance(event, dict):
                yield event


def _message(choice: dict[str, Any] | None) -> dict[str, Any] | None:
    for field in ("message", "delta"):
        if choice and isinstance(choice.get(field), dict):
            return choice[field]
    return {"content": choice["text"]} if choice and isinstance(choice.get("text"), str) else None


def _text_and_thoughts(message: dict[str, Any]) -> tuple[str, str]:
    """What a message says, and the thoughts that the server keeps apart, in a field or among the content's parts."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    thoughts = _text([part for part in parts if _is_thought(part)])
    thoughts = next(filter(None, (_text(message.get(field)) for field in _THOUGHTS)), thoughts)
    return _text([part for part in parts if not _is_thought(part)]), thoughts


def _is_thought(part: Any) -> bool:
    kind = str(_object(part).get("type"))
    return kind.startswith(("thinking", "thought", "reasoning")) or _object(part).get("thought") is True


def _text(value: Any, depth: int = 0) -> str:
    """The text in a string, a part, or a list of them; what is no text, such as an image, is left out."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(_text(item, depth + 1) for item in value)
    if isinstance(value, dict):
        fields = ("text", "thinking", "reasoning", "content", "refusal", "summary", "value")
        return next(filter(None, (_text(value.get(field), depth + 1) for field in fields)), "")
    return ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(counts: dict[str, Any], *fields: str) -> int | None:
    """A number of tokens, or None where there is none that can be believed."""
    for field in fields:
        value = counts.get(field)
        if isinstance(value, str):
            value = int(value) if value.strip().isdecimal() and len(value) < 18 else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return int(value)
    return None


def _stop_string(choice: dict[str, Any]) -> str | None:
    """vLLM's `stop_reason`, or SGLang's `matched_stop`: a string, or a token's id, or null for the model's own end."""
    for field in ("stop_reason", "matched_stop"):
        if field in choice and choice.get("finish_reason") == "stop":
            ended_by = choice[field]
            if ended_by in STOP_STRINGS:
                return ended_by
            # Others say here only that it was a stop string; a string that nobody asked for ends the model's turns.
            return None if ended_by in ("stop", "stop_sequence") else ""
    return None
