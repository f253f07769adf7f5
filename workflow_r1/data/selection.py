"""Which rows of the sources become training rows, and which test rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from workflow_r1.data.benchmarks import load_benchmark
from workflow_r1.data.cleaning import Dropped, clean_evaluation, clean_training, question_key
from workflow_r1.data.errors import DataError
from workflow_r1.data.examples import Example
from workflow_r1.data.layouts import read_examples
from workflow_r1.data.sampling import Mix, Ranked, draw, lowest_ranked
from workflow_r1.data.sources import Source, SourceFile

MAX_HELD_OUT = 1000


class Selection(BaseModel):
    """What is asked for.

    Attributes:
        num_train: training rows; fewer where there are not so many.
        num_test: test rows; None for the whole test split, or where no source has one, for a tenth of the rows, at
            most 1000, which are then held out of the training rows.
        mix: how the data sources share these numbers.
        exclude: benchmarks or files whose questions must not be trained on, besides those of the test split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_train: int = Field(default=10_000, ge=1)
    num_test: int | None = Field(default=None, ge=1)
    seed: int = 1
    mix: Mix = "balanced"
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelectedRows:
    """The rows of a run, and how they came to be.

    Attributes:
        train: in an order that the seed decides.
        test: in the order of the source; disjoint from `train`.
        inputs: the files read, by split.
        dropped: rows that could not be used.
    """

    train: list[Example]
    test: list[Example]
    inputs: dict[str, Sequence[SourceFile]]
    dropped: list[Dropped]


def select_rows(sources: Sequence[Source], selection: Selection) -> SelectedRows:
    """Read the sources once and choose.

    Raises:
        DataError: a source cannot be read, or leaves no row to train or to test on.
    """
    train_files = [file for source in sources for file in source.training]
    test_files = [file for source in sources if source.has_evaluation for file in source.evaluation]
    dropped: list[Dropped] = []
    evaluation = {question_key(example.question) for name in selection.exclude for example in load_benchmark(name)}
    seed, mix = selection.seed, selection.mix

    if test_files:
        candidates = list(clean_evaluation(read_examples(test_files), dropped))
        evaluation |= {question_key(example.question) for example in candidates}
        ranked = lowest_ranked(candidates, selection.num_test, seed)
        test = draw(ranked, selection.num_test or len(candidates), mix)
        ranked = lowest_ranked(
            clean_training(read_examples(train_files), evaluation, dropped), selection.num_train, seed
        )
    else:
        ranked = lowest_ranked(clean_training(read_examples(train_files), evaluation, dropped), None, seed)
        total = sum(map(len, ranked.values()))
        test = draw(ranked, selection.num_test or min(MAX_HELD_OUT, -(-total // 10)), mix)
        held_out = {position for _, position, _ in test}
        ranked = {source: [row for row in rows if row[1] not in held_out] for source, rows in ranked.items()}
    train = draw(ranked, selection.num_train, mix)

    names = ", ".join(source.name for source in sources)
    for split, rows in (("training", train), ("test", test)):
        if not rows:
            raise DataError(f"No {split} row is left of {names}: {len(dropped)} row(s) were dropped{_why(dropped)}.")
    return SelectedRows(
        train=[example for _, _, example in train],
        test=[example for _, _, example in sorted(test, key=_position)],
        inputs={"train": train_files, "test": test_files},
        dropped=dropped,
    )


def _position(row: Ranked) -> int:
    return row[1]


def _why(dropped: Sequence[Dropped]) -> str:
    first = {row.reason.value: row.example.fault for row in reversed(dropped)}
    return f" ({'; '.join(str(fault or reason) for reason, fault in sorted(first.items()))})" if first else ""
