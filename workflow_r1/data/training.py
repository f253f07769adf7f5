"""The rows of a run's files as verl will load them, so that what is checked is what is trained on."""

import glob
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from workflow_r1.data.errors import DataError
from workflow_r1.data.files import column_names, is_parquet, read_rows

if TYPE_CHECKING:
    from datasets import Dataset

_KINDS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}  # verl goes by the ending


def load_training_file(file: str) -> "Dataset":
    """Load a file with the library, and so with the guesses at types, that verl's `RLHFDataset` loads it with.

    Args:
        file: one entry of `data.train_files` or `data.val_files`: a path, a pattern, or a URL that `datasets` takes.

    Raises:
        DataError: it is not there, or cannot be loaded.
    """
    import datasets  # slow to import

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs, it also raises
    kind = _KINDS.get(Path(file).suffix)
    if kind is None:
        raise DataError(f"{file} ends in none of {', '.join(_KINDS)}, by which verl tells what a file is: rename it.")
    paths = [] if "://" in file else _matching(file)
    for path in paths:
        column_names(path)  # says what a file is that is no data
        if is_parquet(path) != (kind == "parquet"):
            raise DataError(f"{path} is {'JSON' if kind == 'parquet' else 'Parquet'} by its content: rename it.")
    try:
        return datasets.load_dataset(kind, data_files=as_pattern(file), split="train")
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError, ValueError, RecursionError) as error:
        for path in paths:
            if not sum(1 for _ in read_rows(path)):  # which names a malformed line
                raise DataError(f"{path} has no rows.") from None
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise DataError(f"{file} cannot be loaded as verl loads it: {reason.rstrip('.')}.") from None


def as_pattern(file: str) -> str:
    """An entry as `datasets` and verl have to be told it: a name with a wildcard in it, such as `[1]`, is a pattern."""
    return glob.escape(file) if "://" not in file and Path(file).expanduser().is_file() else file


def _matching(file: str) -> list[Path]:
    path = Path(file).expanduser()
    paths = [path] if path.is_file() else [Path(match) for match in sorted(glob.glob(file))]  # noqa: PTH207 (absolute)
    if not paths:
        raise DataError(f"{file} does not exist.")
    return paths


def check_joinable(files: Sequence[str], loaded: Sequence["Dataset"]) -> None:
    """What verl does with several files is to concatenate them, which takes the same types in the same columns.

    Raises:
        DataError: two files differ; names them and the columns.
    """
    from datasets import concatenate_datasets

    for (file, rows), (other, others) in combinations(zip(files, loaded, strict=True), 2):
        try:
            concatenate_datasets([rows, others])
        except ValueError:
            one, two = rows.features, others.features
            columns = ", ".join(name for name in one if name in two and one[name] != two[name])
            raise DataError(
                f"{file} and {other} cannot be used together, since the types in {columns} differ: make them one "
                "with 'workflow-r1 prepare', which takes several --source."
            ) from None


def iterate_rows(loaded: "Dataset", columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows in order, reduced to those of `columns` that there are."""
    kept = loaded.select_columns([name for name in columns if name in loaded.column_names])
    for batch in kept.iter(batch_size=4096):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
