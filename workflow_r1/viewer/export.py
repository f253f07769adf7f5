"""A report in one file: it holds all that it shows, runs no script and asks for nothing."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from workflow_r1.system.files import made_whole
from workflow_r1.viewer import queries
from workflow_r1.viewer.filters import Slice
from workflow_r1.viewer.index import Index
from workflow_r1.viewer.pages import STATIC, members_of, shared_of
from workflow_r1.viewer.rendering import environment
from workflow_r1.viewer.run import configuration, curves, metrics_of, operator_curves, stop_of, warnings_of
from workflow_r1.viewer.sources import Source, ViewError, find_sources

_GROUPS = 12  # of a step, those whose rollouts differ most
_MEMBERS = 16  # rollouts of each


def export(roots: list[Path], path: Path) -> None:
    """Write what is under `roots` as one HTML file: every source, with the last step of each of its parts.

    Raises:
        ViewError: there is nothing to show, or no file can be written there.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ViewError(f"No report can be written to {path}: name a file in a folder that exists, after --export.")
    index = Index(roots)
    index.update()
    reports = [_report(index, source) for source in find_sources(roots)]
    if not reports:
        raise ViewError(f"Nothing in {', '.join(map(str, roots))} is a run or an evaluation: name the folder of one.")
    templates = environment(url=lambda page, **parameters: None, exported=True)
    style = Markup((STATIC / "style.css").read_text(encoding="utf-8"))
    content = templates.get_template("report.html").render(reports=reports, style=style, live=False)
    try:
        with made_whole(path) as file:
            file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ViewError(
            f"No report can be written to {path} ({error.strerror}): name another after --export."
        ) from None


def _report(index: Index, source: Source) -> dict[str, Any]:
    metrics = metrics_of(source)
    with index.connect() as connection:
        steps = queries.steps(connection, source.path)
        last = {row["part"]: row["step"] for row in steps}
        slices = []
        for part, step in last.items():
            place = Slice(source=source.path, part=part, step=step)
            groups = []
            for row in queries.groups(connection, place)[:_GROUPS]:
                members = members_of(queries.group(connection, place, row["question"])[:_MEMBERS])
                groups.append((row, members, shared_of(members)))
            slices.append({"part": part, "step": step, "groups": groups})
    return {
        "source": source,
        "stop": stop_of(source),
        "warnings": warnings_of(source),
        "charts": curves(metrics) + operator_curves(metrics),
        "configuration": configuration(source),
        "steps": steps,
        "slices": slices,
    }
