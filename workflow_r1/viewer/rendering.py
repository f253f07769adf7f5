"""How pages are made: every expression of a template is escaped, and a control character becomes a visible one."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from workflow_r1.runs.drawing import workflow_rows
from workflow_r1.system.terminal import printable
from workflow_r1.trajectory import CallRecord, Turn
from workflow_r1.viewer.charts import number, waterfall
from workflow_r1.viewer.reading import Entry, recorded

_SHOWN_OF_A_TURN = {"text", "think", "calls", "answer", "error", "tokens", "generate_seconds", "operator_seconds"}
_SHOWN_OF_A_CALL = {"operator", "input", "output", "failed", "error"}


def environment(**names: Any) -> Environment:
    """A template environment that shows whatever a text holds as text.

    Args:
        names: what templates know besides; `url(page, **parameters)` makes an address, or None for text without a link.
    """
    made = Environment(
        loader=PackageLoader("workflow_r1.viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.globals.update(
        number=number,
        rows=workflow_rows,
        waterfall_of=waterfall,
        turn_facts=turn_facts,
        call_facts=call_facts,
        reward_facts=reward_facts,
        trajectory_facts=trajectory_facts,
        **names,
    )
    return made


def _visible(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # Markup is a subclass: it has been through here


def turn_facts(turn: Turn) -> dict[str, Any]:
    """What is known of a turn besides its texts, with all that training recorded; no more than the file holds."""
    known = recorded(turn)
    facts = {
        "tokens": turn.tokens[1] - turn.tokens[0] if any(turn.tokens) else None,
        "generation": _seconds(known.get("generate_seconds")),
        "operators": _seconds(known.get("operator_seconds")) if turn.calls else None,
    }
    return facts | {name: _short(value) for name, value in known.items() if name not in _SHOWN_OF_A_TURN}


def call_facts(call: CallRecord) -> dict[str, Any]:
    """What is known of a call besides its texts."""
    known = recorded(call, exclude=_SHOWN_OF_A_CALL)
    return {name.replace("_", " "): _short(value) for name, value in known.items()}


def reward_facts(entry: Entry) -> dict[str, Any]:
    """The parts of a trajectory's reward, and how it ended."""
    assert entry.trajectory is not None
    parts = {name: number(value) for name, value in entry.trajectory.reward.items()}
    return {"ended": entry.trajectory.ending.replace("_", " ") or None, **parts}


def trajectory_facts(entry: Entry) -> dict[str, Any]:
    """What is known of a trajectory besides its turns."""
    assert entry.trajectory is not None
    trajectory = entry.trajectory
    return {
        "gold": _short(" | ".join(trajectory.golds)) if trajectory.golds else None,
        "data source": trajectory.data_source or None,
        **reward_facts(entry),
        **{name: _short(value) for name, value in ((trajectory.model_extra or {}) | entry.result).items()},
    }


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} s"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
