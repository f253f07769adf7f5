"""The operator layer under load: N trajectories at once, against the bare openai client in the same run.

    python benchmarks/operators_load.py [--trajectories 1 256 1024] [--rounds 3]

Each trajectory calls AnswerGenerate, MultiAnswerGenerate (three samples), ScEnsemble and Review, one after the other:
six requests, four of them in a row. The endpoint takes 200 ms for each, in a process of its own. `bare` makes the same
requests with AsyncOpenAI on its aiohttp transport, and nothing else; `pool` goes through the operators; `run` goes
through the operators with limits and ledger shared by way of a run's coordinator. They take turns, and the figures are
medians over the rounds. Then the same trajectories with an empty reply cache and with a full one.

Exits with 1 where a promise is not kept: at 256, `pool` within 1.25 times `bare`; at 1024, no more than four times its
time at 256; one trajectory within 5 % of 0.8 s; a full cache at least 20 times as fast as an empty one.
Writes results/operators_load.json.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from openai import AsyncOpenAI, DefaultAioHttpClient
from operators_endpoint import KEY, MODEL, counters, endpoint
from rich.console import Console
from rich.table import Table

from workflow_r1.operators import OperatorPool, OperatorSettings, RunCoordinator
from workflow_r1.operators.builtin import AnswerGenerate, MultiAnswerGenerate, Review, ScEnsemble

SERVICE_TIME = 0.2
CALLS = (
    (AnswerGenerate, "{question}"),
    (MultiAnswerGenerate, "{question}"),
    (ScEnsemble, "<query>{question}</query><solution>Paris</solution><solution>Rome</solution>"),
    (Review, "<question>{question}</question><solution>Paris</solution>"),
)
REQUESTS = sum(spec.samples for spec, _ in CALLS)
RESULT = Path(__file__).parent / "results" / "operators_load.json"

Trajectory = Callable[[str], Awaitable[None]]


def through(pool: OperatorPool) -> Trajectory:
    async def trajectory(question: str) -> None:
        for spec, text in CALLS:
            result = await pool.call(spec.name, text.format(question=question), trajectory=question)
            assert not result.failed, result.error
            assert not result.rejected, result.text

    return trajectory


def bare(client: AsyncOpenAI) -> Trajectory:
    async def request(spec, messages) -> str | None:
        completion = await client.chat.completions.create(
            model=MODEL,
            messages=messages,
            temperature=spec.sampling.temperature,
            max_tokens=spec.sampling.max_tokens,
        )
        return completion.choices[0].message.content

    async def trajectory(question: str) -> None:
        for spec, text in CALLS:
            messages = spec.messages(spec.parse(text.format(question=question)))
            await asyncio.gather(*(request(spec, messages) for _ in range(spec.samples)))

    return trajectory


async def timed(trajectory: Trajectory, count: int, name: str) -> float:
    """Seconds that `count` trajectories at once take."""
    started = time.perf_counter()
    await asyncio.gather(*(trajectory(f"{name} {number}: what is the capital of France?") for number in range(count)))
    return time.perf_counter() - started


async def compare(url: str, sizes: list[int], rounds: int, folder: Path) -> dict[int, dict[str, float]]:
    settings = OperatorSettings(base_url=url, api_key=KEY, model=MODEL, max_concurrency=1000)
    client = AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, http_client=DefaultAioHttpClient())
    shared = settings.model_copy(update={"run_dir": folder})
    figures: dict[int, dict[str, float]] = {}
    with RunCoordinator(folder, settings.limits) as coordinator:
        async with OperatorPool(settings) as pool, OperatorPool(shared) as run, client:
            ways = {"bare": bare(client), "pool": through(pool), "run": through(run)}
            for way in ways.values():
                await timed(way, 1, "warm-up")  # connections, imports
            for size in sizes:
                seconds: dict[str, list[float]] = {way: [] for way in ways}
                for number in range(rounds):
                    for name, way in ways.items():
                        seconds[name].append(await timed(way, size, f"{size} {number}"))
                figures[size] = {name: statistics.median(times) for name, times in seconds.items()}
        assert coordinator.ledger.total.total.failed == 0
    return figures


async def cached(url: str, size: int, folder: Path) -> dict[str, float]:
    settings = OperatorSettings(
        base_url=url,
        api_key=KEY,
        model=MODEL,
        max_concurrency=1000,
        cache="on",
        cache_dir=folder,
        cache_sampled=True,
    )
    async with OperatorPool(settings) as pool:
        cold = await timed(through(pool), size, "cache")
        warm = [await timed(through(pool), size, "cache") for _ in range(3)]
        assert pool.usage.total.requests == size * REQUESTS
    return {"cold": cold, "warm": statistics.median(warm)}


def judge(figures: dict[int, dict[str, float]], cache: dict[str, float]) -> dict[str, tuple[float, float, bool]]:
    """By promise: the figure, the bound, and whether it is kept."""
    verdict = {"cold / warm cache": (ratio := cache["cold"] / cache["warm"], 20.0, ratio >= 20)}
    if 1 in figures:
        over = figures[1]["pool"] / (len(CALLS) * SERVICE_TIME)
        verdict["1: pool / ideal"] = (over, 1.05, over <= 1.05)
    if 256 in figures:
        over = figures[256]["pool"] / figures[256]["bare"]
        verdict["256: pool / bare"] = (over, 1.25, over <= 1.25)
        if 1024 in figures:
            over = figures[1024]["pool"] / figures[256]["pool"]
            verdict["1024 / 256: pool"] = (over, 4.0, over <= 4)
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", type=int, nargs="+", default=[1, 256, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached", type=int, default=256, help="trajectories for the cache's figures")
    arguments = parser.parse_args()
    with endpoint(SERVICE_TIME) as url, tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(compare(url, arguments.trajectories, arguments.rounds, Path(folder) / "run"))
        counted = counters(url)
        cache = asyncio.run(cached(url, arguments.cached, Path(folder) / "cache"))
    verdict = judge(figures, cache)
    show(figures, cache, verdict)
    RESULT.parent.mkdir(exist_ok=True)
    result = {
        "seconds": {str(size): {way: round(value, 3) for way, value in row.items()} for size, row in figures.items()},
        "cache_seconds": {"trajectories": arguments.cached, **{name: round(value, 4) for name, value in cache.items()}},
        "promises": {
            name: {"figure": round(figure, 3), "bound": bound, "kept": kept}
            for name, (figure, bound, kept) in verdict.items()
        },
        "requests_of_a_trajectory": REQUESTS,
        "most_in_flight": counted["in_flight"],
        "rounds": arguments.rounds,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, openai {version('openai')}",
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(not all(kept for _, _, kept in verdict.values()))


def show(figures, cache, verdict) -> None:
    console, table = Console(), Table("trajectories", "bare s", "pool s", "run s", "pool / bare", "run / bare")
    for size, row in figures.items():
        ratios = (row["pool"] / row["bare"], row["run"] / row["bare"])
        table.add_row(str(size), *(f"{value:.2f}" for value in (*row.values(), *ratios)))
    console.print(table)
    console.print(f"empty cache {cache['cold']:.2f} s, full cache {cache['warm']:.3f} s")
    for name, (figure, bound, kept) in verdict.items():
        console.print(f"{'kept' if kept else 'BROKEN':7}{name} = {figure:.3f} (bound {bound})", highlight=False)


if __name__ == "__main__":
    main()
