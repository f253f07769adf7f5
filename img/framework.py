"""Draw img/framework.png, what Workflow-R1 is in one picture: python img/framework.py"""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH, HEIGHT = 1200, 610  # of the drawing's units, a hundred to the inch; y grows downwards
INK, QUIET = "#1f2937", "#64748b"
POLICY, OPERATOR, LOSS, GOOD, MASKED = "#4f46e5", "#c2650a", "#0f766e", "#15803d", "#94a3b8"
TINT = {POLICY: "#eef2ff", OPERATOR: "#fff7ed", LOSS: "#f0fdfa", GOOD: "#f0fdf4", MASKED: "#f8fafc"}
LEFT, RIGHT = 205, 1015  # edges of the three bands
TURN, INFO = 190, 90  # widths of a turn and of what is read after it
TURNS = (205, 505, 825)
INFOS = (405, 705)
OPERATORS = ("AnswerGenerate", "MultiAnswerGenerate", "Review", "Revise", "ScEnsemble", "Search", "your own")


def box(
    axes: Axes, x: float, y: float, width: float, height: float, color: str, solid: bool = False, dashed: bool = False
) -> None:
    """A rounded box with its upper left corner at (x, y)."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=9",
            facecolor=color if solid else TINT[color],
            edgecolor=color,
            linewidth=1.2,
            linestyle=(0, (3, 2)) if dashed else "-",
        )
    )


def write(axes: Axes, x: float, y: float, text: str, size: float = 11, color: str = INK, **style: str) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "color": color, **style})


def heading(axes: Axes, y: float, name: str, color: str, x: float, text: str) -> None:
    """What a band is called, and from x on what it does."""
    write(axes, LEFT + 16, y, name, 12.5, color, weight="bold", ha="left")
    write(axes, x, y, text, 11, QUIET, ha="left")


def arrow(axes: Axes, *points: tuple[float, float], color: str = QUIET) -> None:
    """Straight lines through the points, with a head at the last."""
    axes.plot(*zip(*points, strict=True), color=color, linewidth=1.6, solid_joinstyle="round")
    axes.add_patch(
        FancyArrowPatch(
            *points[-2:], arrowstyle="-|>", mutation_scale=13, color=color, linewidth=1.6, shrinkA=0, shrinkB=0
        )
    )


def rollout(axes: Axes) -> None:
    """The question, and the policy's turns with what it reads between them."""
    write(axes, 100, 34, "question", 12.5, weight="bold")
    box(axes, 20, 56, 160, 112, MASKED)
    write(axes, 100, 112, "Where was the\ndirector of Zebora\nborn?")
    arrow(axes, (180, 112), (LEFT, 112))
    heading(axes, 34, "policy", POLICY, 290, "builds the workflow turn by turn: it thinks, calls an operator, reads, …")
    thoughts = ("first the director", "now the birthplace", "two of three agree")
    actions = ("AnswerGenerate", "MultiAnswerGenerate", "answer: Felmholm")
    for x, thought, action in zip(TURNS, thoughts, actions, strict=True):
        box(axes, x, 56, TURN, 112, POLICY)
        write(axes, x + TURN / 2, 84, f"think: {thought}", 10, POLICY, style="italic")
        box(axes, x + 8, 112, TURN - 16, 46, GOOD if action.startswith("answer") else POLICY, solid=True)
        write(axes, x + TURN / 2, 135, action, 9.6, "white", weight="bold")
    for x, text in zip(INFOS, ("Zemar", "Felmholm\nFelmholm\nFoxburg"), strict=True):
        box(axes, x + 5, 76, INFO - 10, 72, MASKED, dashed=True)
        write(axes, x + INFO / 2, 112, text, 10)
    write(axes, 811, 112, "…", 13, QUIET)


def operators(axes: Axes) -> None:
    """What the calls go to, and what comes back."""
    box(axes, LEFT, 226, RIGHT - LEFT, 96, OPERATOR)
    heading(
        axes, 249, "operators", OPERATOR, 330, "prompts to any OpenAI-compatible LLM, or a search; one budget a run"
    )
    x = LEFT + 16.0
    for name in OPERATORS:
        width, own = 24 + 7.7 * len(name), name == "your own"
        box(axes, x, 272, width, 34, OPERATOR, solid=not own, dashed=own)
        write(axes, x + width / 2, 289, name, 9.5, OPERATOR if own else "white", weight="bold")
        x += width + 9
    for x in TURNS[:2]:
        arrow(axes, (x + TURN / 2, 168), (x + TURN / 2, 226), color=OPERATOR)
        write(axes, x + TURN / 2 + 8, 196, "calls", 10, QUIET, ha="left")
    for x in INFOS:
        arrow(axes, (x + INFO / 2, 226), (x + INFO / 2, 148), color=OPERATOR)
        write(axes, x + INFO / 2 + 8, 196, "reads", 10, QUIET, ha="left")


def reward(axes: Axes) -> None:
    """From the answer to the advantage."""
    box(axes, 1050, 226, 130, 96, GOOD)
    write(axes, 1115, 252, "reward", 12.5, GOOD, weight="bold")
    write(axes, 1115, 289, "exact match, F1\nor your own", 10, QUIET)
    arrow(axes, (RIGHT, 112), (1115, 112), (1115, 226), color=GOOD)
    box(axes, 1050, 430, 130, 64, LOSS)
    write(axes, 1115, 449, "advantage", 12.5, LOSS, weight="bold")
    write(axes, 1115, 475, "within its group", 10, QUIET)
    arrow(axes, (1115, 322), (1115, 430), color=GOOD)


def loss(axes: Axes) -> None:
    """One ratio and one clip for each turn, below the turn that it belongs to; then the weights."""
    box(axes, LEFT, 380, RIGHT - LEFT, 210, LOSS)
    heading(axes, 405, "GSsPO", LOSS, 302, "one importance ratio and one clip a turn; what was only read is masked")
    for name, x, cut_left, cut_right in zip("12K", TURNS, (16, 0, 0), (0, 0, 16), strict=True):
        box(axes, x + cut_left, 442, TURN - cut_left - cut_right, 40, LOSS, solid=True)
        write(axes, x + TURN / 2, 462, rf"$s_{name}$", 15, "white")
    for x in INFOS:
        box(axes, x + 5, 442, INFO - 10, 40, MASKED, dashed=True)
        write(axes, x + INFO / 2, 462, "masked", 10, QUIET)
    write(axes, 811, 462, "…", 13, QUIET)
    mean = r"\frac{1}{|\tau_k|}\sum_{t\in\tau_k}\,\log\frac{\pi_\theta(y_t)}{\pi_\mathrm{old}(y_t)}"
    write(axes, 365, 538, rf"$s_k=\exp\left({mean}\right)$", 15)
    clip = r"\mathrm{clip}(s_k,\,1-\varepsilon_\mathrm{low},\,1+\varepsilon_\mathrm{high})"
    write(axes, 762, 538, rf"$J=\frac{{1}}{{K}}\sum_{{k=1}}^{{K}}\,\min\left(s_k\hat A,\ {clip}\,\hat A\right)$", 15)
    arrow(axes, (1050, 462), (RIGHT, 462), color=LOSS)
    box(axes, 20, 430, 150, 64, POLICY)
    write(axes, 95, 449, "weights", 12.5, POLICY, weight="bold")
    write(axes, 95, 475, "verl, FSDP → vLLM", 10, QUIET)
    arrow(axes, (LEFT, 462), (170, 462), color=LOSS)
    arrow(axes, (95, 430), (95, 196), (235, 196), (235, 168), color=POLICY)


def draw() -> Figure:
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "mathtext.fontset": "cm"})
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.axis("off")
    for part in (rollout, operators, reward, loss):
        part(axes)
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_suffix(".png"), dpi=170)
