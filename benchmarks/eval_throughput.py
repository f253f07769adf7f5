"""How close an evaluation comes to its critical path: 500 questions, 64 at a time, endpoints that take 200 ms.

    python benchmarks/eval_throughput.py            # all of it
    python benchmarks/eval_throughput.py --costs    # only what the baselines cost

The endpoints are two HTTP servers in a process of their own on this machine: a policy that calls AnswerGenerate once
and answers, and the simulated operator LLM. The critical path is what asking the questions would take if it cost no
time of its own: the requests of a question one after the other, the questions in ceil(500 / 64) waves. Timed is
everything from the first question to the last result on disk; writing the tables and the chart is timed apart. Each
system is run ROUNDS times and the median counts. Exits with 1 where it is more than 1.3 times the critical path.

What a question costs with each baseline is counted on the same questions: its requests, their tokens, and the CPU time
that this process, the client, takes for a request. Writes results/eval_throughput.json; with --costs the timings in it
stay as they are.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from workflow_r1.evaluation.baselines import BASELINES
from workflow_r1.evaluation.config import RunSettings
from workflow_r1.evaluation.execution import execute, prepare_run
from workflow_r1.evaluation.opening import open_system
from workflow_r1.evaluation.record import ResultStore
from workflow_r1.evaluation.runner import evaluate, missing
from workflow_r1.evaluation.systems import Baseline
from workflow_r1.protocol import read_observation
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World

QUESTIONS, CONCURRENCY, LATENCY = 500, 64, 0.2
ROUNDS = 3
LIMIT = 1.3
RESULT = Path(__file__).parent / "results" / "eval_throughput.json"
# What is evaluated -> the requests of one question, one after the other
SYSTEMS = {"policy": 3, "cot": 1, "review-revise": 3}


class OneCallPolicy:
    """Asks AnswerGenerate the whole question, then answers what it read."""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/models", lambda: {"object": "list", "data": []}, methods=["GET"])
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        return app

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(LATENCY)
        last = body["messages"][-1]["content"]
        if last.startswith("<info>"):
            text = f"<think>done</think><answer>{read_observation(last)}"
        else:
            text = f"<think>ask</think><tool>AnswerGenerate: {last}"
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def serve_endpoints(urls: Connection) -> None:
    operators = SimulatedEndpoint(SimulatedLLM(World.build(seed=1)), latency=LATENCY)
    with running_server(operators) as one, running_server(OneCallPolicy()) as other:  # type: ignore[arg-type]
        urls.send((one.base_url, other.base_url))
        urls.recv()  # until the benchmark is done


async def seconds(system: str, policy_url: str, questions: Path) -> tuple[float, float]:
    """The wall-clock time of asking all questions, and of the reports."""
    chosen = {"policy": policy_url, "model": "m"} if system == "policy" else {"baseline": system}
    settings = RunSettings.model_validate({**chosen, "prompt": "none", "benchmarks": [str(questions)]})
    with tempfile.TemporaryDirectory() as folder:
        run = prepare_run(system, settings, Path(folder) / "run")
        with closing(ResultStore(run.folder, run.identity)) as store:
            async with open_system(settings, run.folder, print) as opened:
                work = missing(run.examples, 1, store)
                started = time.perf_counter()
                await evaluate(work, opened, store, seed=0, concurrency=CONCURRENCY)
                asking = time.perf_counter() - started
        started = time.perf_counter()
        summary, _ = await execute(run, Console(quiet=True))
        reports = time.perf_counter() - started
    served = sum(benchmark.questions for benchmark in summary.benchmarks.values())
    assert served == QUESTIONS, f"only {served} questions were served"
    return asking, reports


def timings(policy_url: str, questions: Path) -> dict[str, dict[str, Any]]:
    """By system, the time that an evaluation takes over its critical path."""
    results = {}
    for system, requests in SYSTEMS.items():
        rounds = [asyncio.run(seconds(system, policy_url, questions)) for _ in range(ROUNDS)]
        asking, reports = zip(*rounds, strict=True)
        critical_path = math.ceil(QUESTIONS / CONCURRENCY) * requests * LATENCY
        results[system] = {
            "critical_path_s": round(critical_path, 1),
            "asking_s": [round(value, 3) for value in asking],
            "ratio": round(statistics.median(asking) / critical_path, 3),
            "reports_s": round(statistics.median(reports), 3),
        }
    return results


async def cost(baseline: str, questions: Path) -> dict[str, float]:
    """What a question costs with `baseline`: requests and tokens at the operators' endpoint, and the client's CPU."""
    settings = RunSettings(baseline=baseline, benchmarks=(str(questions),))
    with tempfile.TemporaryDirectory() as folder:
        run = prepare_run(baseline, settings, Path(folder))
        with closing(ResultStore(run.folder, run.identity)) as store:
            async with open_system(settings, run.folder, print) as opened:
                assert isinstance(opened, Baseline)
                started = time.process_time()
                await evaluate(missing(run.examples, 1, store), opened, store, seed=0, concurrency=CONCURRENCY)
                cpu, used = time.process_time() - started, opened.operators.usage.total
    assert used.failed == 0, f"{used.failed} calls failed"
    return {
        "requests": round(used.requests / QUESTIONS, 2),
        "tokens": round((used.prompt_tokens + used.completion_tokens) / QUESTIONS, 1),
        "cpu_ms_per_request": round(1000 * cpu / used.requests, 2),
    }


@contextmanager
def endpoints() -> Iterator[str]:
    """The URL of the policy, while both endpoints are up and OPERATOR_* point to the operators'."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve_endpoints, args=(there,))
    server.start()
    try:
        operator_url, policy_url = here.recv()
        os.environ.update(OPERATOR_BASE_URL=operator_url, OPERATOR_API_KEY="none", OPERATOR_MODEL_NAME=MODEL_NAME)
        yield policy_url
    finally:
        here.send("done")
        server.join()


def show(results: dict[str, dict[str, Any]], columns: dict[str, str]) -> None:
    table = Table("system", *columns.values())
    for system, result in results.items():
        table.add_row(system, *(f"{result[key]:.2f}" for key in columns))
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--costs", action="store_true", help="count only what the baselines cost")
    only_costs = parser.parse_args().costs
    content = json.loads(RESULT.read_text(encoding="utf-8")) if only_costs else {}
    with endpoints() as policy_url, tempfile.TemporaryDirectory() as folder:
        questions = World.build(seed=1).write_parquet(Path(folder), train=2, validation=QUESTIONS)[1]
        if not only_costs:
            content = {
                "questions": QUESTIONS,
                "concurrency": CONCURRENCY,
                "latency_s": LATENCY,
                "limit": LIMIT,
                "cores": os.cpu_count(),
                "load_average": round(os.getloadavg()[0], 1),
                "python": platform.python_version(),
                "systems": timings(policy_url, questions),
            }
            columns = {
                "critical_path_s": "critical path, s",
                "ratio": "asking / critical path",
                "reports_s": "reports, s",
            }
            show(content["systems"], columns)
        content["baselines"] = {name: asyncio.run(cost(name, questions)) for name in BASELINES}
        show(
            content["baselines"], {"requests": "requests", "tokens": "tokens", "cpu_ms_per_request": "CPU ms a request"}
        )
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return int(not only_costs and any(result["ratio"] > LIMIT for result in content["systems"].values()))


if __name__ == "__main__":
    sys.exit(main())
