"""`workflow-r1 prepare` and `workflow-r1 validate`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflow_r1.cli.options import takes_settings
from workflow_r1.data.sampling import Mix
from workflow_r1.errors import UserError
from workflow_r1.reward import Reward, RewardSettings
from workflow_r1.system.terminal import echo, fail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workflow_r1.data.card import Card
    from workflow_r1.data.examples import Example
    from workflow_r1.data.validation import ValidationReport

LOCAL_DIR = Path("data/workflow_r1")
_FAULTS_SHOWN = 20


def prepare(
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the questions come from, once or more often: a Hub dataset (owner/name or owner/name/config, "
            "either with :split), or a local folder or file (Parquet in verl's or FlashRAG's columns, FlashRAG or "
            "NQ-open JSON Lines, HotpotQA JSON). Default: PeterJinGo/nq_hotpotqa_train.",
            show_default=False,
        ),
    ] = None,
    local_dir: Annotated[Path, typer.Option(help="The folder that train.parquet and test.parquet go to.")] = LOCAL_DIR,
    num_train: Annotated[int, typer.Option(min=1, help="Training rows, chosen by the seed.")] = 10_000,
    num_test: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Test rows. Default: the whole test split; where the source has none, a tenth of its rows, at most "
            "1000, held out of the training rows.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which rows, and in which order.")] = 1,
    mix: Annotated[
        Mix,
        typer.Option(help="balanced: as many rows of each dataset, such as NQ and HotpotQA; natural: as they come."),
    ] = "balanced",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="A benchmark or a file, as for 'eval', once or more often: its questions are not trained on. Those of "
            "the source's own test split never are.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="A Hugging Face tokenizer to count the lengths of questions and answers with, for the data card."
        ),
    ] = None,
) -> None:
    """Prepare questions for training: verl's Parquet files and a data card."""
    from workflow_r1.data.prepare import DEFAULT_SOURCE, prepare_dataset
    from workflow_r1.data.selection import Selection

    try:
        card = prepare_dataset(
            source or [DEFAULT_SOURCE],
            local_dir,
            Selection(num_train=num_train, num_test=num_test, seed=seed, mix=mix, exclude=tuple(exclude or ())),
            tokenizer,
        )
    except UserError as error:
        fail(error)
    else:
        _show(card, local_dir)


@takes_settings(RewardSettings)
def validate(
    values: dict[str, Any],
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, Hub datasets or benchmarks, as for prepare --source. Default: data/workflow_r1.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Score every row's gold answers through the real reward.

    A row that they do not win is named, and the exit code is 1.
    """
    from workflow_r1.data.errors import DataError
    from workflow_r1.data.layouts import read_examples
    from workflow_r1.data.sources import open_source
    from workflow_r1.evaluation.config import parse_settings

    try:
        if not source and not LOCAL_DIR.exists():
            raise DataError(
                f"There is no {LOCAL_DIR} yet: make it with 'workflow-r1 prepare', or name what to validate."
            )
        opened = [open_source(text) for text in source or [str(LOCAL_DIR)]]
        files = [file for each in opened for split in each.splits.values() for file in split]
        reward = Reward(parse_settings(RewardSettings, values, "--reward"), "--reward")
        report = asyncio.run(_validated(read_examples(files), reward))
    except UserError as error:
        fail(error)
    for data_source, count in sorted(report.rows.items()):
        faulty = sum(fault.example.data_source == data_source for fault in report.faults)
        earned = ", ".join(f"{name} {mean:.3g}" for name, mean in report.means(data_source).items())
        echo(f"{data_source}: {count - faulty:,} of {count:,} rows are won by their gold answers ({earned or 'none'})")
    for fault in report.faults[:_FAULTS_SHOWN]:
        echo(f"{fault.example.id} ({fault.example.question!r}): {fault.reason}", err=True)
    if len(report.faults) > _FAULTS_SHOWN:
        echo(f"... and {len(report.faults) - _FAULTS_SHOWN:,} more rows", err=True)
    if report.faults:
        raise typer.Exit(1)


async def _validated(examples: "Iterable[Example]", reward: Reward) -> "ValidationReport":
    from workflow_r1.data.validation import validate_examples
    from workflow_r1.operators import OperatorPool
    from workflow_r1.operators.judge import RewardOperators

    if not reward.asks_operators:
        return await validate_examples(examples, reward)
    async with OperatorPool.from_env() as pool:
        return await validate_examples(examples, reward, lambda: RewardOperators(pool))


def _show(card: "Card", local_dir: Path) -> None:
    from workflow_r1.data.card import dropped_lines

    for split, sources in card.rows.items():
        parts = ", ".join(f"{count:,} {source}" for source, count in sources.items())
        echo(f"{local_dir / f'{split}.parquet'}: {sum(sources.values()):,} rows ({parts})")
    rows, wanted = sum(card.rows["train"].values()), card.selection.num_train
    if rows < wanted:
        echo(f"The source has only {rows:,} usable training rows; {wanted:,} were asked for.")
    for line in dropped_lines(card.dropped):
        echo(line)
    for split, texts in card.tokens.items():
        echo(f"{split} questions: {texts['question']['median']} tokens (median), {texts['question']['max']} (longest)")
    echo(f"Data card: {local_dir / 'README.md'} and card.json")
