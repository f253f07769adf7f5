"""A view for the terminal: the questions of a step, the rollouts of a question, or one trajectory."""

from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection, Row

from rich.console import Console
from rich.table import Table
from rich.text import Text

from workflow_r1.records import shown
from workflow_r1.runs.report import print_trajectory
from workflow_r1.viewer import queries
from workflow_r1.viewer.filters import Filter, Slice
from workflow_r1.viewer.grouping import actions, shared_turns
from workflow_r1.viewer.index import Index
from workflow_r1.viewer.reading import Entry, read_row
from workflow_r1.viewer.search import find
from workflow_r1.viewer.sources import Source, TrajectoryFile, ViewError, find_sources, trajectory_files

_SHORT = 60  # characters of a text in a table


@dataclass(frozen=True)
class Wanted:
    """What to print.

    Attributes:
        part: `train`, `val` or `eval`; None takes what there is, `train` first.
        step: None takes the last one.
        question: a part of its text, in any case of letters.
        line: of the step's file.
    """

    part: str | None = None
    step: int | None = None
    question: str | None = None
    line: int | None = None


def print_view(console: Console, roots: list[Path], wanted: Wanted) -> None:
    """Print what is wanted of every source under `roots`.

    Raises:
        ViewError: there is no such source, step, question or line.
    """
    index = Index(roots)
    chosen = [(source, file) for source in find_sources(roots) if (file := _choose(source, wanted)) is not None]
    if not chosen:
        raise ViewError(
            f"Nothing in {', '.join(map(str, roots))} is such a file of trajectories"
            f"{'' if wanted.step is None else f' of step {wanted.step}'}: name a run's folder, or an evaluation's."
        )
    files = {file.path for _, file in chosen}
    index.update(lambda file: file.path in files)
    with index.connect() as connection:
        for source, file in chosen:
            title = file.part if file.step == 0 and not source.is_run else f"{file.part}, step {file.step}"
            console.print(Text(f"{source.name}: {title}", "bold"))
            _print_slice(console, connection, Slice(source=source.path, part=file.part, step=file.step), wanted)


def _choose(source: Source, wanted: Wanted) -> TrajectoryFile | None:
    files = [
        file
        for file in trajectory_files(source)
        if wanted.part in (None, file.part) and wanted.step in (None, file.step)
    ]
    return max(files, key=lambda file: (file.part == "train", file.step), default=None)


def _print_slice(console: Console, connection: Connection, place: Slice, wanted: Wanted) -> None:
    if wanted.line is not None:
        row = queries.one(connection, place, wanted.line)
        if row is None:
            raise ViewError(f"There is no line {wanted.line}: name another --line.")
        _print_entry(console, read_row(row))
        return
    groups = queries.groups(connection, place)
    if wanted.question is None:
        console.print(_groups_table(groups))
        faulty = find(connection, Filter(**place.model_dump(), ended="fault"))
        for row in faulty.rows:
            console.print(f"line {row['line']}: {row['fault']}")
        console.print(Text("--question TEXT shows the rollouts of a question, --line N a trajectory.", "dim"))
        return
    matching = [row for row in groups if wanted.question.lower() in row["text"].lower()]
    if not matching:
        raise ViewError(f"No question holds {wanted.question!r}: name a part of one with --question.")
    for found in matching:
        _print_group(console, queries.group(connection, place, found["question"]))


def _groups_table(groups: list[Row]) -> Table:
    table = Table()
    table.add_column("question", no_wrap=True)
    table.add_column("source")
    for name in ("rollouts", "score", "from", "to", "calls"):
        table.add_column(name, justify="right")
    for row in groups:
        scores = [shown(row[name], ".2f") for name in ("score", "least", "most", "calls")]
        table.add_row(Text(_short(row["text"])), Text(row["data"] or ""), str(row["rollouts"]), *scores)
    return table


def _print_group(console: Console, rows: list[Row]) -> None:
    entries = [read_row(row) for row in rows]
    trajectories = [entry.trajectory for entry in entries if entry.trajectory is not None]
    if not trajectories:
        return
    first = trajectories[0]
    console.print(Text.assemble(("Question", "bold"), f" {first.question}"))
    if first.golds:
        console.print(Text(f"gold     {' | '.join(first.golds)}", "dim"))
    shared = shared_turns(trajectories)
    if len(trajectories) > 1:
        console.print(Text(f"all share {shared} turn(s), ┃ marks where they part", "dim"))
    for row, entry in zip(rows, entries, strict=True):
        console.print(_rollout(row, entry, shared if len(trajectories) > 1 else 0))
    console.print()


def _rollout(row: Row, entry: Entry, shared: int) -> Text:
    line = Text(f"  line {row['line']:>4}  reward {shown(row['reward'], '+.2f'):>6}  ")
    if entry.trajectory is None:
        return line.append(entry.fault or "", "red")
    steps = actions(entry.trajectory)
    line.append(" → ".join(steps[:shared]), "dim")
    line.append(" ┃ " if shared and steps[shared:] else "")
    line.append(" → ".join(steps[shared:]))
    answer = entry.trajectory.answer
    line.append(f": {_short(answer)}" if answer is not None else f": {entry.trajectory.ending.replace('_', ' ')}")
    return line.append(f" ({entry.fault})" if entry.fault else "", "red")


def _print_entry(console: Console, entry: Entry) -> None:
    if entry.trajectory is not None:
        print_trajectory(console, entry.trajectory)
        reward = "  ".join(f"{name} {value:g}" for name, value in entry.trajectory.reward.items())
        console.print(Text(f"  reward   {reward or shown(None)}", "dim"))
    if entry.fault:
        console.print(Text(entry.fault, "red"))


def _short(text: str) -> str:
    line = " ".join(text[: 4 * _SHORT].split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"
