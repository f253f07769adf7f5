"""Where each known column layout keeps the question and its gold answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workflow_r1.data.errors import DataError
from workflow_r1.data.examples import Example
from workflow_r1.data.files import Row, column_names, read_rows
from workflow_r1.data.sources import SourceFile


@dataclass(frozen=True)
class Layout:
    """One way to lay out questions in columns.

    Attributes:
        needs: the columns that it is recognised by.
        reads: further columns that it looks into, where there are any.
    """

    name: str
    needs: tuple[str, ...]
    question: Callable[[Row], Any]
    golds: Callable[[Row], Any]
    reads: tuple[str, ...] = ()


def _verl_question(row: Row) -> Any:
    noted = row.get("question") or _field(row.get("extra_info"), "question")
    messages = row["prompt"] if isinstance(row["prompt"], list) else []
    asked = [_field(message, "content") for message in messages if _field(message, "role") == "user"]
    return noted or (asked[-1] if asked else None)


def _verl_golds(row: Row) -> Any:
    truth = _field(row["reward_model"], "ground_truth")
    return _field(truth, "target") if isinstance(truth, dict) else truth


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


LAYOUTS = (
    # First, since the Hub's nq_hotpotqa_train has these columns and verl's: the plain ones are read faster.
    Layout(
        "FlashRAG",
        needs=("question", "golden_answers"),
        question=lambda row: row.get("question"),
        golds=lambda row: row.get("golden_answers"),
    ),
    Layout(
        "verl",
        needs=("prompt", "reward_model"),
        question=_verl_question,
        golds=_verl_golds,
        reads=("question", "extra_info"),
    ),
    Layout(
        "NQ-open or HotpotQA",
        needs=("question", "answer"),
        question=lambda row: row.get("question"),
        golds=lambda row: row.get("answer"),
    ),
)
_COMMON = ("id", "_id", "data_source")


def find_layout(columns: Sequence[str], where: str) -> Layout:
    """The first known layout that these columns have.

    Raises:
        DataError: none has them; names the columns found and the layouts known.
    """
    for layout in LAYOUTS:
        if set(layout.needs) <= set(columns):
            return layout
    known = "; ".join(f"{layout.name}: {', '.join(layout.needs)}" for layout in LAYOUTS)
    found = ", ".join(columns) or "none"
    raise DataError(f"{where} has no known column layout: it has the columns {found}; known are {known}.")


def read_examples(files: Sequence[SourceFile]) -> Iterator[Example]:
    """Every row of some files, in order, with ids that are unique among them.

    A row without a question or gold answer is an `Example` with that part empty.

    Raises:
        DataError: a file cannot be read or has no known layout.
    """
    name = _Names()
    for file in files:
        columns = column_names(file.path)
        layout = find_layout(columns, file.origin)
        wanted = [column for column in (*layout.needs, *layout.reads, *_COMMON) if column in columns]
        for index, row in enumerate(read_rows(file.path, wanted)):
            data_source = str(row.get("data_source") or file.data_source)
            noted = row.get("id") or row.get("_id") or _field(row.get("extra_info"), "id")
            identity = _text(noted) or f"{data_source}_{index}"
            question, golds = layout.question(row), layout.golds(row)
            yield Example(name.unique(identity), _text(question), _texts(golds), data_source)


class _Names:
    """Makes names unique: a name that is taken gets a number."""

    def __init__(self) -> None:
        self._uses: dict[str, int] = {}

    def unique(self, name: str) -> str:
        candidate = name
        while candidate in self._uses:
            self._uses[name] += 1
            candidate = f"{name}#{self._uses[name]}"
        self._uses[candidate] = 1
        return candidate


def _text(value: Any) -> str:
    """A string or a number as text; anything else is no text."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(filter(None, map(_text, values))))
