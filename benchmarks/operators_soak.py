"""Many operator calls in one process: does it grow?

    python benchmarks/operators_soak.py [--calls 100000] [--concurrency 64]

An endpoint in a process of its own answers at once, but for 2 % of the requests: half get a 503, half lose their
connection. The calls go through everything that a training run has: limits shared by way of a coordinator, requests
and tokens a minute counted, the reply cache (a tenth of the calls repeat an earlier one), the ledger. A limit on
requests a minute sets the pace: the last minute's requests are remembered, and their number is to stay the same.
Resident memory, open sockets and tasks are looked at twenty times, with no call under way. After a warm-up of two
minutes memory may grow by 2 % from the first third of the looks to the last; a run shorter than that says nothing
about memory. Sockets stay within the concurrency, tasks do not grow, and closing leaves neither. Exits with 1
otherwise, or where a call failed.
Writes results/operators_soak.json.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from operators_endpoint import KEY, MODEL, endpoint

from workflow_r1.operators import OperatorPool, OperatorSettings, RunCoordinator

LOOKS = 20
WARM_UP = 120.0
PER_MINUTE = 9_000
MOST_GROWTH = 1.02
RESULT = Path(__file__).parent / "results" / "operators_soak.json"


async def soak(url: str, calls: int, concurrency: int, folder: Path) -> list[dict[str, float]]:
    settings = OperatorSettings(
        base_url=url,
        api_key=KEY,
        model=MODEL,
        max_concurrency=concurrency,
        requests_per_minute=PER_MINUTE,
        tokens_per_minute=10**12,  # counted, never reached
        backoff=0.01,
        cache="on",
        cache_dir=folder / "cache",
        cache_bytes=2**21,  # full long before the end: it is mapped into memory
        run_dir=folder / "run",
    )
    looks: list[dict[str, float]] = []
    started = time.perf_counter()
    with RunCoordinator(folder / "run", settings.limits) as coordinator:
        async with OperatorPool(settings) as pool:
            for look in range(LOOKS):
                numbers = iter(range(calls * look // LOOKS, calls * (look + 1) // LOOKS))
                await asyncio.gather(*(trajectory(pool, numbers) for _ in range(concurrency)))
                looks.append({**now(pool.usage.total.calls), "seconds": round(time.perf_counter() - started, 1)})
            usage = pool.usage.total
        await asyncio.sleep(0.5)
        assert coordinator.ledger.total.total.calls == usage.calls == calls
        assert usage.failed == 0, f"{usage.failed} calls failed"
        assert usage.retries > 0
        assert usage.cache_hits > 0
    return [*looks, now(calls)]


async def trajectory(pool: OperatorPool, numbers: Iterator[int]) -> None:
    for number in numbers:
        await pool.call("AnswerGenerate", f"question {number - 1 if number % 10 == 1 else number}")


def now(calls: int) -> dict[str, float]:
    gc.collect()
    process = psutil.Process()
    return {
        "calls": calls,
        "memory_mib": round(process.memory_info().rss / 2**20, 1),
        "of_it_files_mib": round(process.memory_info().shared / 2**20, 1),
        "sockets": sum(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections()),
        "tasks": len(asyncio.all_tasks()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with endpoint(0.0, fault_rate=0.02) as url, tempfile.TemporaryDirectory() as folder:
        *looks, end = asyncio.run(soak(url, arguments.calls, arguments.concurrency, Path(folder)))
    seconds = time.perf_counter() - started
    warm = [look["memory_mib"] for look in looks if look["seconds"] >= WARM_UP]
    third = -(-len(warm) // 3)
    growth = statistics.median(warm[-third:]) / statistics.median(warm[:third]) if warm else 1.0
    busiest = max(look["sockets"] for look in looks)
    fewest, most = (bound(look["tasks"] for look in looks) for bound in (min, max))
    held = busiest <= arguments.concurrency + 4 and fewest == most  # and the coordinator's two ends
    kept = growth <= MOST_GROWTH and held and end["tasks"] == 1 and end["sockets"] == 0
    result = {
        "calls": arguments.calls,
        "seconds": round(seconds, 1),
        "memory_growth_after_warm_up": round(growth, 4),
        "kept": kept,
        "looks": looks,
        "closed": end,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "looks"}))
    for look in looks:
        print(look)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
