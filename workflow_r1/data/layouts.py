"""Where each known column layout keeps the question and its gold answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow_r1.data.errors import DataError, RowError
from workflow_r1.data.examples import Example
from workflow_r1.data.files import Row, column_names, read_rows
from workflow_r1.data.golds import read_golds, read_text
from workflow_r1.data.sources import SourceFile
from workflow_r1.data.verl_rows import row_golds, row_question


@dataclass(frozen=True)
class Layout:
    """One way to lay out questions in columns.

    Attributes:
        needs: the columns that it is recognised by.
        question, golds: read a row, or raise `RowError`.
        reads: further columns that it looks into, where there are any.
    """

    name: str
    needs: tuple[str, ...]
    question: Callable[[Row], str]
    golds: Callable[[Row], tuple[str, ...]]
    reads: tuple[str, ...] = ()


LAYOUTS = (
    # First, since that is what a run reads of a file that has the other columns too, as the Hub's nq_hotpotqa_train.
    Layout(
        "verl",
        needs=("prompt", "reward_model"),
        question=row_question,
        golds=lambda row: row_golds(row.get("reward_model")),
        reads=("question", "extra_info"),
    ),
    Layout(
        "FlashRAG",
        needs=("question", "golden_answers"),
        question=row_question,
        golds=lambda row: read_golds(row.get("golden_answers")),
    ),
    Layout(
        "NQ-open or HotpotQA",
        needs=("question", "answer"),
        question=row_question,
        golds=lambda row: read_golds(row.get("answer")),
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

    A row that cannot be used comes as an `Example` with its fault.

    Raises:
        DataError: a file cannot be read or has no known layout.
    """
    name = _Names()
    for file in files:
        columns = column_names(file.path)
        layout = find_layout(columns, file.origin)
        wanted = [column for column in (*layout.needs, *layout.reads, *_COMMON) if column in columns]
        if "question" in wanted and "prompt" in wanted:
            wanted.remove("prompt")  # which repeats the question, and is long
        for index, row in enumerate(read_rows(file.path, wanted)):
            data_source = _label(row.get("data_source")) or file.data_source
            extra = extra if isinstance(extra := row.get("extra_info"), dict) else {}
            noted = row.get("id"), row.get("_id"), extra.get("id")
            identity = next(filter(None, map(_label, noted)), f"{data_source}_{index}")
            yield _example(layout, row, name.unique(identity), data_source, extra)


def _example(layout: Layout, row: Row, name: str, data_source: str, extra_info: Mapping[str, Any]) -> Example:
    question = ""
    try:
        question = layout.question(row)
        return Example(name, question, layout.golds(row), data_source, None, extra_info)
    except RowError as fault:
        return Example(name, question, (), data_source, fault, extra_info)


def _label(value: Any) -> str:
    """A name that a row gives, or "" where it is none: another is then made."""
    try:
        return read_text(value)
    except RowError:
        return ""


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
