"""From sources of questions to the training and test files of a run, with a data card beside them."""

import gc
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workflow_r1.data.card import Card, DroppedRow, FileRecord, rows_by_source
from workflow_r1.data.errors import DataError
from workflow_r1.data.lengths import load_tokenizer, token_lengths
from workflow_r1.data.selection import Selection, select_rows
from workflow_r1.data.sources import open_source
from workflow_r1.data.table import write_examples

DEFAULT_SOURCE = "PeterJinGo/nq_hotpotqa_train"


def prepare_dataset(
    sources: Sequence[str],
    local_dir: Path,
    selection: Selection,
    tokenizer: str | None = None,
) -> Card:
    """Write `train.parquet`, `test.parquet`, `card.json` and `README.md` into a folder: all of them, or none.

    Args:
        sources: what `sources.open_source` takes.
        tokenizer: count token lengths with this one.

    Raises:
        DataError: a source, the tokenizer or the folder cannot be used.
    """
    counting = load_tokenizer(tokenizer) if tokenizer else None
    with _without_garbage_collection():
        selected = select_rows([open_source(source) for source in sources], selection)
    splits = {"train": selected.train, "test": selected.test}
    with _published(local_dir) as folder:
        for split, examples in splits.items():
            write_examples(folder / f"{split}.parquet", examples, split)
        card = Card(
            sources=list(sources),
            selection=selection,
            inputs=[
                FileRecord(split=split, file=file.origin, sha256=_sha256(file.path))
                for split, files in selected.inputs.items()
                for file in files
            ],
            outputs=[
                FileRecord(split=split, file=f"{split}.parquet", sha256=_sha256(folder / f"{split}.parquet"))
                for split in splits
            ],
            rows=rows_by_source(splits),
            dropped=[DroppedRow.of(row) for row in selected.dropped],
            tokenizer=tokenizer,
            tokens={
                split: token_lengths(examples, counting) for split, examples in splits.items() if counting is not None
            },
        )
        (folder / "card.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card.markdown(), encoding="utf-8")
    return card


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Rows hold no cycles, and looking through hundreds of thousands of them for some takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _published(local_dir: Path) -> Iterator[Path]:
    """A folder whose files move into `local_dir` once all are whole; after a failure `local_dir` is as it was."""
    try:
        local_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=local_dir) as partial:
            yield Path(partial)
            for path in sorted(Path(partial).iterdir(), reverse=True):  # the data before its card
                path.replace(local_dir / path.name)
    except OSError as error:
        raise DataError(f"Cannot write to {local_dir}: {error.strerror or error}.") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
