"""The one reader of chat completions, on the bodies themselves."""

import json

import pytest

from workflow_r1.services.completion import (
    ErrorReplyError,
    MalformedReplyError,
    read_completion,
    read_models,
    read_token_ids,
)


def body(content="Paris", finish_reason="stop", **fields):
    message = {"role": "assistant", "content": content, **fields}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}]})


@pytest.mark.parametrize(
    "reason",
    [
        "length",
        "MAX_TOKENS",
        "FINISH_REASON_MAX_TOKENS",
        "FinishReason.MAX_TOKENS",
        "model_context_window_exceeded",
        "context_length_exceeded",
        {"type": "length", "length": 16},
    ],
)
def test_a_cut_text_is_known_as_one_whatever_the_server_calls_it(reason):
    assert read_completion(body("<answer>Par", reason)).is_cut


@pytest.mark.parametrize("reason", ["stop", "eos", "FINISH_REASON_STOP", {"type": "stop"}, None, 7, {}, []])
def test_any_other_end_is_none(reason):
    assert not read_completion(body("Paris", reason)).is_cut


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "FINISH_REASON_SAFETY"])
def test_a_withheld_text_is_known_as_one(reason):
    assert read_completion(body("", reason)).is_withheld


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_text": "hm"},
        {"thought": "hm"},
        {"thoughts": [{"text": "hm"}]},
        {"content": [{"type": "reasoning_text", "text": "hm"}, {"type": "text", "text": "Paris"}]},
        {"content": [{"thought": True, "text": "hm"}, {"text": "Paris"}]},
        {"content": [{"type": "thought", "text": "hm"}, {"type": "output_text", "text": "Paris"}]},
    ],
)
def test_thoughts_are_kept_apart_in_any_shape(fields):
    completion = read_completion(body(**fields))
    assert (completion.text, completion.reasoning) == ("Paris", "hm")


@pytest.mark.parametrize("read", [read_completion, read_token_ids, read_models])
@pytest.mark.parametrize("error", [True, 1, {"code": 429}])
def test_an_error_without_a_text_has_the_one_beside_it(read, error):
    with pytest.raises(ErrorReplyError) as caught:
        read(json.dumps({"error": error, "message": "quota exceeded"}))
    assert caught.value.complaint.text == "quota exceeded"


@pytest.mark.parametrize("event", [{"message": "quota exceeded"}, {"error": True, "message": "quota exceeded"}])
def test_an_error_in_a_stream_keeps_its_text(event):
    with pytest.raises(ErrorReplyError) as caught:
        read_completion(f"data: {json.dumps(event)}\n\ndata: [DONE]\n")
    assert caught.value.complaint.text == "quota exceeded"


@pytest.mark.parametrize("read", [read_completion, read_token_ids, read_models])
@pytest.mark.parametrize(
    "value", [{"Message": "denied"}, {"exception": "denied"}, "denied", ["denied", 1], {"ok": False}]
)
def test_json_of_no_known_kind_is_what_was_said(read, value):
    with pytest.raises(MalformedReplyError) as caught:
        read(json.dumps(value))
    assert caught.value.said == (value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
def test_a_stream_is_cut_at_its_line_ends_alone(separator):
    event = {"choices": [{"delta": {"content": f"a{separator}b"}, "finish_reason": "stop"}]}
    stream = f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\ndata: [DONE]\n"
    assert read_completion(stream).text == f"a{separator}b"
