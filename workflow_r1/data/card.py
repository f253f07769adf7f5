"""The data card: what a prepared dataset was made from and what it holds, for programs and for readers.

Nothing in it depends on when or where it was made, so the same data has the same card.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from workflow_r1.data.cleaning import Dropped
from workflow_r1.data.examples import Example
from workflow_r1.data.lengths import Lengths
from workflow_r1.data.selection import Selection

_NAMED_IN_README = 5


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    split: str
    file: str
    sha256: str


class DroppedRow(_Record):
    """A row that was left out; `value` is what could not be used of it, where it was that."""

    split: str
    data_source: str
    id: str
    question: str
    reason: str
    value: str

    @classmethod
    def of(cls, row: Dropped) -> "DroppedRow":
        example = row.example
        return cls(
            split=row.split,
            data_source=example.data_source,
            id=example.id,
            question=example.question,
            reason=row.reason.value,
            value=example.fault.value if example.fault else "",
        )


class Card(_Record):
    """A prepared dataset.

    Attributes:
        sources: as they were asked for.
        rows: by split and data source.
        tokenizer: what `tokens` were counted with; None where they were not.
        tokens: by split and text (`question`, `answer`).
    """

    sources: list[str]
    selection: Selection
    inputs: list[FileRecord]
    outputs: list[FileRecord]
    rows: dict[str, dict[str, int]]
    dropped: list[DroppedRow]
    tokenizer: str | None = None
    tokens: dict[str, dict[str, Lengths]] = {}

    def markdown(self) -> str:
        """The card for readers, headed so that the folder loads as a Hub dataset."""
        return "\n\n".join(
            [
                _HEADER,
                f"# Questions for Workflow-R1\n\nMade by `workflow-r1 prepare` from {', '.join(self.sources)}; "
                f"{self.selection.mix} mix, seed {self.selection.seed}.",
                "## Rows\n\n" + _table(["split", "data source", "rows"], self._counted()),
                "## Left out\n\n" + self._left_out(),
                *(["## Tokens\n\n" + self._lengths()] if self.tokenizer else []),
                "## Files\n\n" + _table(["split", "file", "SHA-256"], self._files()),
            ]
        )

    def _counted(self) -> Iterable[Sequence[object]]:
        for split, sources in self.rows.items():
            yield from ((split, source, f"{count:,}") for source, count in sources.items())
            yield split, "**all**", f"{sum(sources.values()):,}"

    def _left_out(self) -> str:
        if not self.dropped:
            return "Nothing."
        counts = [(*kind, f"{len(rows):,}") for kind, rows in _by_kind(self.dropped).items()]
        examples = []
        for split, reason, _ in counts:
            rows = _by_kind(self.dropped)[split, reason]
            named = [
                " ".join(filter(None, (f"- {row.id}:", row.question, row.value))) for row in rows[:_NAMED_IN_README]
            ]
            examples.append("\n".join([f"{split}, {reason}:", "", *named]))
        return "\n\n".join([_table(["split", "reason", "rows"], counts), *examples, "All are named in `card.json`."])

    def _lengths(self) -> str:
        rows = [
            (split, text, *lengths.values()) for split, texts in self.tokens.items() for text, lengths in texts.items()
        ]
        columns = next(iter(next(iter(self.tokens.values())).values()))
        return f"Counted with {self.tokenizer}.\n\n" + _table(["split", "text", *columns], rows)

    def _files(self) -> Iterable[Sequence[object]]:
        for kind, records in (("from", self.inputs), ("into", self.outputs)):
            yield from ((f"{kind} {record.split}", record.file, f"`{record.sha256}`") for record in records)


_HEADER = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
  - split: test
    path: test.parquet
---"""


def dropped_lines(dropped: Iterable[DroppedRow]) -> list[str]:
    """How many rows were left out for which reason, with a value of each, for the terminal."""
    return [
        f"dropped from {split}: {len(rows):,} rows, {reason}" + (f", such as {rows[0].value}" if rows[0].value else "")
        for (split, reason), rows in _by_kind(dropped).items()
    ]


def _by_kind(dropped: Iterable[DroppedRow]) -> dict[tuple[str, str], list[DroppedRow]]:
    kinds: dict[tuple[str, str], list[DroppedRow]] = {}
    for row in dropped:
        kinds.setdefault((row.split, row.reason), []).append(row)
    return kinds


def rows_by_source(splits: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, int]]:
    """How many rows each split has of each data source."""
    return {
        split: dict(sorted(Counter(example.data_source for example in examples).items()))
        for split, examples in splits.items()
    }


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
