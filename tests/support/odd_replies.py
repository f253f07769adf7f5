"""Replies as servers in the wild send them, and what they are worth."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sent:
    """The response to a request for a chat completion."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def message(content: Any, finish_reason: Any = "stop", usage: Any = None, **fields: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 90, "completion_tokens": 20} if usage is None else usage
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content, **fields},
    }
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}


def sent(reply: Any, status: int = 200, **headers: str) -> Sent:
    body = reply if isinstance(reply, bytes) else (reply if isinstance(reply, str) else json.dumps(reply)).encode()
    return Sent(body, status, {"Content-Type": "application/json", **headers})


def stream(*events: Any, done: bool = True) -> Sent:
    lines = [
        ": KEEPALIVE",
        "",
        *(f"data: {json.dumps(event)}\n" for event in events),
        *["data: [DONE]", ""][: 2 * done],
    ]
    return sent("\n".join(lines), **{"Content-Type": "text/event-stream"})


def _deltas(text: str) -> Sent:
    half = len(text) // 2
    parts = [{"role": "assistant", "content": text[:half]}, {"content": text[half:]}, {}]
    events = [{"choices": [{"index": 0, "delta": part, "finish_reason": None}]} for part in parts]
    events[-1]["choices"][0]["finish_reason"] = "stop"
    return stream(*events, {"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 20}})


READABLE: dict[str, Callable[[str], Sent]] = {
    "as OpenAI documents it": lambda text: sent(message(text)),
    "content in parts": lambda text: sent(
        message([{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}])
    ),
    "parts that are strings": lambda text: sent(message([text[:5], text[5:]])),
    "one part that is no list": lambda text: sent(message({"type": "output_text", "text": text})),
    "an image among the parts": lambda text: sent(
        message([{"type": "image_url", "image_url": {"url": "data:,x"}}, {"type": "text", "text": text}])
    ),
    "text in a refusal": lambda text: sent(message(None, refusal=text)),
    "text as Assistants nest it": lambda text: sent(message([{"type": "text", "text": {"value": text}}])),
    "no usage": lambda text: sent(message(text, usage={"x": 1})),
    "usage null": lambda text: sent({**message(text), "usage": None}),
    "usage of strings": lambda text: sent(message(text, usage={"prompt_tokens": "90", "completion_tokens": "20"})),
    "usage with NaN": lambda text: sent(message(text, usage={"prompt_tokens": float("nan")})),
    "usage that is a list": lambda text: sent({**message(text), "usage": [90, 20]}),
    "an empty error beside the choices": lambda text: sent({**message(text), "error": None}),
    "a stream": _deltas,
    "gzip": lambda text: sent(gzip.compress(json.dumps(message(text)).encode()), **{"Content-Encoding": "gzip"}),
    "plain text that is JSON": lambda text: sent(message(text), **{"Content-Type": "text/plain"}),
    "blank lines around it": lambda text: sent(b"\n\n  " + json.dumps(message(text)).encode() + b" \r\n\n"),
    "a byte-order mark": lambda text: sent(b"\xef\xbb\xbf" + json.dumps(message(text)).encode()),
    "the reply twice": lambda text: sent(json.dumps(message(text)) * 2),
    "several choices": lambda text: sent({"choices": [*message(text)["choices"], *message("another")["choices"]]}),
    "a chunk in place of a message": lambda text: sent(
        {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    ),
    "a completion's text": lambda text: sent({"choices": [{"text": text, "finish_reason": "stop"}]}),
    **{
        f"finish reason {reason!r}": lambda text, reason=reason: sent(message(text, reason))
        for reason in (None, "", "eos", "eos_token", "end_turn", "stop_sequence", "STOP", "tool_calls", "COMPLETE", 7)
    },
}
"""By what is odd about it, how a server sends a text."""

ERRORS: dict[str, tuple[Sent, str]] = {
    "an error object": (sent({"error": {"message": "out of credit", "type": "billing"}}), "out of credit"),
    "an error text": (sent({"error": "model is loading"}), "model is loading"),
    "an error with its status": (
        sent({"error": {"message": "upstream is gone", "code": 502}}),
        "answered 502: upstream is gone",
    ),
    "an error beside the choices": (sent({"error": {"message": "broke"}, "choices": []}), "broke"),
    "an error in the choice": (
        sent({"choices": [{"error": {"code": 429, "message": "provider is busy"}, "finish_reason": "error"}]}),
        "answered 429: provider is busy",
    ),
    "the provider's words": (
        sent({"error": {"message": "Provider returned error", "metadata": {"raw": '{"detail": "no GPU"}'}}}),
        "Provider returned error; no GPU",
    ),
    "a list of one error": (sent([{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED"}}]), "quota"),
    "errors in a list": (sent({"errors": [{"message": "first"}, {"message": "second"}]}), "first; second"),
    "detail": (sent({"detail": "not today"}), "not today"),
    "detail of FastAPI": (
        sent({"detail": [{"loc": ["body", "stop"], "msg": "Field required", "type": "missing"}]}),
        "body.stop: Field required",
    ),
    "an old vLLM's": (sent({"object": "error", "message": "bad", "code": 40001}), "bad"),
    "MiniMax's": (
        sent({"base_resp": {"status_code": 1004, "status_msg": "login fail"}, "choices": None}),
        "login fail",
    ),
    "an error in a stream": (stream({"error": {"message": "midway"}}), "midway"),
    "a finish reason that is an error": (sent(message("", "error")), "the reply ended by 'error'"),
    "a web page": (sent("<!DOCTYPE html><html><title>Open WebUI</title></html>"), "most often ends in /v1"),
    "plain text": (sent("upstream request timeout", **{"Content-Type": "text/plain"}), "upstream request timeout"),
    "nothing": (sent(""), "not a reply"),
    "choices null": (sent({"choices": None}), "not a reply"),
    "choices empty": (sent({"id": "1", "choices": [], "usage": {}}), "not a reply"),
    "choices of null": (sent({"choices": [None]}), "not a reply"),
    "message null": (sent({"choices": [{"message": None, "finish_reason": "stop"}]}), "not a reply"),
    "a number": (sent("42"), "not a reply"),
    "a number of 5,000 digits": (sent('{"choices": ' + "9" * 5000 + "}"), "not a reply"),
    "deep nesting": (sent("[" * 100_000), "not a reply"),
    "half a stream": (stream({"choices": [{"delta": {"content": "<result>Par"}}]}, done=False), "not a reply"),
    "broken compression": (sent(b"\x1f\x8bxxxx", **{"Content-Encoding": "gzip"}), "not a reply"),
    "a web page with a status": (
        sent("<html><head><title>502 Bad Gateway</title></head></html>", 502, **{"Content-Type": "text/html"}),
        "answered 502: 502 Bad Gateway.",
    ),
    "a status with a list": (sent([{"error": {"message": "API key expired"}}], 400), "answered 400: API key expired."),
    "a status with plain text": (
        sent("Rate limit reached", 429, **{"retry-after-ms": "1"}),
        "answered 429: Rate limit reached.",
    ),
    "a status and nothing": (sent("", 500), "answered 500."),
    "no credit": (
        sent({"error": {"message": "Insufficient credits", "code": 402}}, 402),
        "answered 402: Insufficient credits.",
    ),
}
"""By what is odd about it, an error that a server sends, and what has to be said of it."""
