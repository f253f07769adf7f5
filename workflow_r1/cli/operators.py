"""`workflow-r1 operators`: see them, call one, check what they ask, and build a corpus to search."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from workflow_r1.errors import UserError
from workflow_r1.operators.builtin import Search
from workflow_r1.operators.pool import OperatorPool
from workflow_r1.operators.registry import select_operators
from workflow_r1.records import shown, well_formed
from workflow_r1.services.ledger import read_ledger
from workflow_r1.services.usage import usage_table
from workflow_r1.system.terminal import TextConsole, echo, fail

T = TypeVar("T")

_MAX_RETRIES = 1  # somebody waits

operators_app = typer.Typer(no_args_is_help=True, help="The operators that a workflow is built from.")

ModuleOption = Annotated[
    list[str] | None,
    typer.Option("--module", "-m", help="A Python module that declares operators of your own; may be repeated."),
]
IndexOption = Annotated[
    Path | None,
    typer.Option("--index", help="Search this folder, made by 'operators index', instead of SEARCH_URL."),
]


@operators_app.command("list")
def list_(module: ModuleOption = None) -> None:
    """Show every operator, how its input is written and when the policy is told to use it."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("operator", "input", "used when"):
        table.add_column(column, overflow="fold")
    try:
        specs = select_operators(None, module or (), search=True)
    except UserError as error:
        fail(error)
    for spec in specs.values():
        table.add_row(spec.name, spec.input_form, spec.use_when)
    TextConsole().print(table)


@operators_app.command()
def call(
    name: Annotated[str, typer.Argument(help="The operator.")],
    text: Annotated[str, typer.Argument(metavar="INPUT", help="Its input, as 'operators list' shows it.")],
    module: ModuleOption = None,
    index: IndexOption = None,
) -> None:
    """Call one operator and print what it returns; what it took goes to standard error."""
    pool = _pool([name], module, index)

    async def run() -> None:
        async with pool:
            result = await pool.call(name, well_formed(text))
        if result.failed:
            fail(f"{result.error} Tried {result.requests} time(s) in {result.seconds:.1f} s.")
        if result.rejected:
            fail(result.text)
        echo(result.text)
        took = f"{result.seconds:.2f} s, {result.requests} request(s), {result.cache_hits} from the cache, "
        took += f"{shown(result.prompt_tokens)} + {shown(result.completion_tokens)} tokens"
        echo(took, err=True, dim=True)

    asyncio.run(run())


@operators_app.command()
def check(module: ModuleOption = None, index: IndexOption = None) -> None:
    """Reach the endpoint with one small request: the key is accepted and the model exists."""
    pool = _pool(None, module, index)
    if pool.settings.search is not None:
        pool = _pool([*(spec.name for spec in pool.specs), Search.name], module, index)
    for name, seconds in _run(pool.check()).items():
        served = getattr(pool.settings.services[name], "model", "")
        echo(f"{name}: {served + ' ' if served else ''}answers in {seconds:.2f} s")


@operators_app.command()
def index(
    passages: Annotated[Path, typer.Argument(help="JSONL, JSON or Parquet: objects with 'text' and perhaps 'title'.")],
    folder: Annotated[Path, typer.Argument(help="Where the index goes.")],
) -> None:
    """Build a corpus for the Search operator, so that it needs no search API."""
    from workflow_r1.services.corpus import index_passages  # slow to import

    try:
        count, unsearchable = index_passages(passages, folder, progress=sys.stderr.isatty())
    except UserError as error:
        fail(error)
    if unsearchable:
        echo(f"{unsearchable} of the passages have only stop words or punctuation: no search finds them")
    echo(f"{count} passages in {folder}; use it with workflow_r1.operators.search.index={folder}")


@operators_app.command()
def usage(ledger: Annotated[Path, typer.Argument(help="The ledger.json of a run.")]) -> None:
    """Show what a run has spent on its operators so far."""
    if not ledger.is_file():
        fail(f"There is no ledger at {ledger}: a run keeps it in the operators folder of its output.")
    try:
        TextConsole().print(usage_table(read_ledger(ledger)))
    except UserError as error:
        fail(error)


def _pool(names: list[str] | None, modules: list[str] | None, index: Path | None) -> OperatorPool:
    try:
        search = {"index": index, "max_retries": _MAX_RETRIES}
        return OperatorPool.from_env(None, names, modules or (), max_retries=_MAX_RETRIES, search=search)
    except UserError as error:
        fail(error)


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except UserError as error:
        fail(error)
