"""The paper's evaluation sets by name, or questions of one's own by path."""

import heapq

from workflow_r1.data.cleaning import Dropped, clean_evaluation
from workflow_r1.data.errors import DataError
from workflow_r1.data.examples import Example
from workflow_r1.data.layouts import read_examples
from workflow_r1.data.sampling import rank
from workflow_r1.data.sources import open_source


def load_benchmark(
    name_or_path: str, limit: int | None = None, seed: int = 1, dropped: list[Dropped] | None = None
) -> list[Example]:
    """The questions of an evaluation set, in the order of its file.

    Rows that cannot be used, and repeated rows, are left out.

    Args:
        name_or_path: one of `sources.BENCHMARKS`, or whatever `sources.open_source` takes; of a source with splits its
            test split, else its validation split.
        limit: take this many questions, chosen by `seed`; a smaller choice is part of a larger one.
        dropped: every row that is left out is added to it.

    Raises:
        DataError: there is no such set, it cannot be reached, or it has no usable row.
    """
    dropped = [] if dropped is None else dropped
    examples = list(clean_evaluation(read_examples(open_source(name_or_path).evaluation), dropped))
    if not examples:
        raise DataError(f"{name_or_path} has no row with both a question and a gold answer ({len(dropped)} read).")
    if limit is None or limit >= len(examples):
        return examples
    ranked = ((rank(example, seed), position) for position, example in enumerate(examples))
    return [examples[position] for position in sorted(position for _, position in heapq.nsmallest(limit, ranked))]
