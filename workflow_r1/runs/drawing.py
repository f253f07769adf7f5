"""A trajectory as a picture: the workflow that the policy built, as a graph from the question down to the answer."""

import re
import textwrap
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from workflow_r1.trajectory import Trajectory, Turn

_WIDTH, _LINES = 34, 6  # characters in a line of a box, and lines
_CONSIDERED = 2_000  # characters of a text
_COLUMN, _LINE, _GAP = 3.2, 0.17, 0.45  # inches
_FIELD = re.compile(r"<(?P<name>\w+)>(?P<value>.*?)</(?P=name)>", re.DOTALL)
_ARROW = {"arrowstyle": "->", "color": "0.5", "shrinkA": 1, "shrinkB": 1}
_PLAIN, _CALL, _RIGHT, _WRONG = "plain", "call", "right", "wrong"
_COLORS = {_PLAIN: "#f2f2f2", _CALL: "#dbe9f6", _RIGHT: "#d9f0d3", _WRONG: "#f9d9d5"}


@dataclass(frozen=True)
class Node:
    """A box of the graph.

    Attributes:
        title: its first line, in bold.
        kind: `plain`, `call`, `right` or `wrong`, which gives it its colour.
        reads: what the arrows that leave it carry.
    """

    title: str
    text: str
    kind: str
    reads: str = ""


def workflow_rows(trajectory: Trajectory) -> list[list[Node]]:
    """The graph from top to bottom; what stands in one row happened in one turn, and arrows join neighbouring rows."""
    rows = [[Node("question", trajectory.question, _PLAIN)]]
    rows += [_turn(turn) for turn in trajectory.turns if turn.answer is None]
    rows.append([_end(trajectory)])
    return rows


def _turn(turn: Turn) -> list[Node]:
    if turn.error is not None:
        return [Node("malformed turn", turn.text, _WRONG, turn.error)]
    return [Node(call.operator, call.input, _WRONG if call.failed else _CALL, call.output) for call in turn.calls] or [
        Node("call that was not made", turn.text, _WRONG)
    ]


def _end(trajectory: Trajectory) -> Node:
    if trajectory.answer is None:
        return Node("no answer", trajectory.ended_by.replace("_", " "), _WRONG)
    right = trajectory.reward.get("acc")
    gold = "" if right is None or right > 0 or not trajectory.golds else f"\n(gold: {' | '.join(trajectory.golds)})"
    kind = _PLAIN if right is None else _RIGHT if right > 0 else _WRONG
    return Node("answer", trajectory.answer + gold, kind)


def draw_workflow(trajectory: Trajectory, path: Path) -> None:
    """Draw the workflow into an image file; its ending (.png, .svg, .pdf) says which kind."""
    from matplotlib.figure import Figure

    rows = workflow_rows(trajectory)
    heights = [max(_lines(node.text) for node in row) * _LINE + 0.3 for row in rows]
    labels = [max(_lines(node.reads) if node.reads else 0 for node in row) * _LINE + _GAP for row in rows]
    width, height = max(map(len, rows)) * _COLUMN, sum(heights) + sum(labels[:-1]) + 0.2
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")

    top, gap = 0.1, 0.0
    above: list[float] = []
    for row, box, label in zip(rows, heights, labels, strict=True):
        centers = _centers(len(row), width)
        for source, target in product(above, centers):
            axes.annotate("", (target, top), (source, top - gap), arrowprops=_ARROW)
        for x, node in zip(centers, row, strict=True):
            axes.text(
                x,
                top + box / 2,
                f"{_bold(node.title)}\n{_wrap(node.text)}",
                ha="center",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "round,pad=0.4", "facecolor": _COLORS[node.kind], "edgecolor": "0.6"},
            )
            axes.text(x + 0.08, top + box + label / 2, _wrap(node.reads), va="center", fontsize=7, color="0.35")
        above, gap = centers, label
        top += box + label
    figure.savefig(path, dpi=150)


def _centers(count: int, width: float) -> list[float]:
    return [width / count * (index + 0.5) for index in range(count)]


def _wrap(text: str) -> str:
    # Far more than a box shows, and little enough for a pattern that looks for each field's end.
    text = _FIELD.sub(r"\n\g<name>: \g<value>", text[:_CONSIDERED])
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, _WIDTH)]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], "…"]
    return "\n".join(lines).replace("$", r"\$")  # matplotlib would read mathematics


def _lines(text: str) -> int:
    return _wrap(text).count("\n") + 1


def _bold(title: str) -> str:
    return r"$\bf{" + title.replace(" ", r"\ ").replace("_", r"\_") + "}$"
