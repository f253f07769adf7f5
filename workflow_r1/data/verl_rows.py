"""Where a row in verl's columns keeps its question and its gold answers."""

from collections.abc import Mapping
from typing import Any

from workflow_r1.data.errors import Reason, RowError
from workflow_r1.data.golds import read_golds, read_text

AGENT_LOOP = "workflow_r1_agent_loop"
"""What the column `agent_name` holds where our rollout is to be run."""


def row_golds(reward_model: Any) -> tuple[str, ...]:
    """The gold answers in the column `reward_model`: its `ground_truth`, or the `target` in that, as Search-R1 has it.

    Raises:
        RowError: there are none, or they cannot be used.
    """
    truth = _field(reward_model, "ground_truth")
    golds = _field(truth, "target") if isinstance(truth, dict) else truth
    if golds is None:
        raise RowError(Reason.NO_GROUND_TRUTH, reward_model)
    return read_golds(golds)


def row_question(row: Mapping[str, Any], prompt_key: str = "prompt") -> str:
    """The question: the text that `question` or `extra_info.question` holds, else the last user message of the prompt.

    Raises:
        RowError: there is none, or it is no text.
    """
    for value in (row.get("question"), _field(row.get("extra_info"), "question")):
        if isinstance(value, str) and (text := read_text(value)):
            return text
    prompt = row.get(prompt_key)
    messages = prompt if isinstance(prompt, list) else []
    asked = [_field(message, "content") for message in messages if _field(message, "role") == "user"]
    if asked and (text := read_text(asked[-1])):
        return text
    if prompt is not None and not isinstance(prompt, list):
        raise RowError(Reason.NO_MESSAGES, prompt)
    raise RowError(Reason.NO_QUESTION)


def check_row(row: Mapping[str, Any], prompt_key: str = "prompt", data_source_key: str = "data_source") -> None:
    """A row has all that a rollout reads, and whose data it is.

    Args:
        row: by column; a column that is not there counts as null.
        prompt_key: verl's `data.prompt_key`.
        data_source_key: verl's `data.reward_fn_key`.

    Raises:
        RowError: it has not.
    """
    prompt, extra = row.get(prompt_key), row.get("extra_info")
    if not isinstance(prompt, list) or not prompt or _field(prompt[-1], "role") != "user":
        raise RowError(Reason.NO_MESSAGES, prompt)
    for message in prompt:
        role, content = _field(message, "role"), _field(message, "content")
        if not isinstance(role, str) or not isinstance(content, str) or (role == "user" and not content.strip()):
            raise RowError(Reason.NO_MESSAGES, prompt)
        read_text(content)
    if extra is not None and not isinstance(extra, dict):
        raise RowError(Reason.NO_EXTRA_INFO, extra)
    data_source = row.get(data_source_key)
    if not isinstance(data_source, str) or not read_text(data_source):
        raise RowError(Reason.NO_DATA_SOURCE, data_source)
    row_question(row, prompt_key)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
