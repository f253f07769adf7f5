"""What each page shows, from the index and the files behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Row
from typing import Any

from pydantic import TypeAdapter, ValidationError

from workflow_r1.runs.stop import Stop
from workflow_r1.viewer import queries
from workflow_r1.viewer.filters import Filter, Slice, Whole
from workflow_r1.viewer.grouping import shared_turns
from workflow_r1.viewer.index import Index
from workflow_r1.viewer.reading import Entry, raw_lines, read_row
from workflow_r1.viewer.run import configuration, curves, metrics_of, operator_curves, stop_of, warnings_of
from workflow_r1.viewer.search import SORTS, find
from workflow_r1.viewer.sources import Source, ViewError, find_sources

STATIC = Path(__file__).parent / "static"
MEMBERS = 64  # rollouts of a group that are drawn
Parameters = Mapping[str, str]


@dataclass(frozen=True)
class Overview:
    """A source in the list of all."""

    source: Source
    steps: list[Row]
    stop: Stop | None


class Pages:
    """Makes what the templates show; a method is a page, named as its template and its address.

    Raises (each page):
        ViewError: the address names what is not there.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def sources(self, parameters: Parameters) -> dict[str, Any]:
        with self._index.connect() as connection:
            overview = [
                Overview(source, queries.steps(connection, source.path), stop_of(source)) for source in self._sources()
            ]
        return {"overview": overview, "source": None}

    def run(self, parameters: Parameters) -> dict[str, Any]:
        source = self._source(parameters)
        with self._index.connect() as connection:
            steps = queries.steps(connection, source.path)
        return {
            "source": source,
            "stop": stop_of(source),
            "warnings": warnings_of(source),
            "charts": curves(metrics_of(source)),
            "steps": steps,
            "configuration": configuration(source),
        }

    def step(self, parameters: Parameters) -> dict[str, Any]:
        source, place = self._place(parameters)
        with self._index.connect() as connection:
            return {
                "source": source,
                "place": place,
                "groups": queries.groups(connection, place),
                "endings": queries.endings(connection, place),
            }

    def group(self, parameters: Parameters) -> dict[str, Any]:
        source, place = self._place(parameters)
        question = _number(parameters, "question")
        with self._index.connect() as connection:
            rows = queries.group(connection, place, question)
            history = queries.history(connection, source.path, question)
        if not rows:
            raise ViewError("This question is not in this step.")
        members = members_of(rows[:MEMBERS])
        return {
            "source": source,
            "place": place,
            "question": rows[0]["text"],
            "number_of_question": question,
            "golds": next((entry.trajectory.golds for _, entry in members if entry.trajectory), []),
            "members": members,
            "shared": shared_of(members),
            "left_out": len(rows) - len(members),
            "history": history,
        }

    def trajectory(self, parameters: Parameters) -> dict[str, Any]:
        source, place = self._place(parameters)
        with self._index.connect() as connection:
            row = queries.one(connection, place, _number(parameters, "line"))
        if row is None:
            raise ViewError("This line is not in this step's file.")
        line = raw_lines([row])
        return {
            "source": source,
            "place": place,
            "row": row,
            "entry": read_row(row),
            "line": line.decode(errors="replace"),
        }

    def find(self, parameters: Parameters) -> dict[str, Any]:
        sources = {source.name: source for source in self._sources()}
        asked = {name: parameters.get(name, "") for name in Filter.model_fields}
        chosen = self._source(parameters).path if asked["source"] else None
        wanted = _validated(Filter, {**asked, "source": chosen})
        with self._index.connect() as connection:
            return {
                "source": sources.get(asked["source"]),
                "asked": asked,
                "names": list(sources),
                "name_of": {bytes(source.path): name for name, source in sources.items()}.get,
                "data": queries.choices(connection, "data"),
                "ended": [*queries.choices(connection, "ended"), "fault"],
                "operators": queries.operators(connection),
                "sorts": SORTS,
                "found": find(connection, wanted, _number({"start": "0", **parameters}, "start")),
            }

    def flips(self, parameters: Parameters) -> dict[str, Any]:
        sides = {name: parameters.get(name, "").strip() for name in ("before", "after")}
        with self._index.connect() as connection:
            slices = [
                f"{source.name}/{row['part']}/{row['step']}"
                for source in self._sources()
                for row in reversed(queries.steps(connection, source.path))
            ]
            context = {"source": None, "slices": slices, **sides}
            if not all(sides.values()):
                return context
            places = {name: _address(side) for name, side in sides.items()}
            before, after = (self._place(place)[1] for place in places.values())
            changed = queries.flips(connection, before, after)
        return {
            **context,
            "changed": changed,
            "lost": sum(row["after"] < row["before"] for row in changed),
            "place_before": places["before"],
            "place_after": places["after"],
        }

    def operators(self, parameters: Parameters) -> dict[str, Any]:
        source = self._source(parameters) if parameters.get("source") else None
        return {
            "source": source,
            "charts": operator_curves(metrics_of(source)) if source else [],
            "names": [other.name for other in self._sources() if other.is_run],
        }

    def _sources(self) -> list[Source]:
        return find_sources(self._index.roots)

    def _source(self, parameters: Parameters) -> Source:
        name = parameters.get("source", "")
        for source in self._sources():
            if source.name == name:
                return source
        raise ViewError(f"There is no source {name!r} here." if name else "Choose a source.")

    def _place(self, parameters: Parameters) -> tuple[Source, Slice]:
        source = self._source(parameters)
        wanted = {name: parameters.get(name, "") for name in ("part", "step")}
        place = _validated(Slice, {**wanted, "source": source.path})
        if place.part is None or place.step is None:
            raise ViewError("The address names no part and step.")
        return source, place


def members_of(rows: list[Row]) -> list[tuple[Row, Entry]]:
    """The rollouts of a group with what their lines hold."""
    return [(row, read_row(row)) for row in rows]


def shared_of(members: list[tuple[Row, Entry]]) -> int:
    """The leading turns that all rollouts have in common."""
    return shared_turns([entry.trajectory for _, entry in members if entry.trajectory is not None])


def _address(side: str) -> dict[str, str]:
    name, part, step = ["", "", *side.rsplit("/", 2)][-3:]
    return {"source": name, "part": part, "step": step}


def _validated(model: Any, values: Mapping[str, Any]) -> Any:
    try:
        return TypeAdapter(model).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ViewError(f"{first['loc'][0] if first['loc'] else 'A field'}: {first['msg']}.") from None


def _number(parameters: Parameters, name: str) -> int:
    try:
        return TypeAdapter(Whole).validate_python(parameters.get(name))
    except ValidationError:
        raise ViewError(f"The address names no {name}.") from None
