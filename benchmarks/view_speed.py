"""`workflow-r1 view` on 1 GB: 200,000 trajectories of 100 steps, made here.

    python benchmarks/view_speed.py

Starts the command on a folder that it has never seen, and once more; asks for pages as a browser does, and adds a step.
Saves results/view_speed.json beside this file: seconds and MB; each question to the pages is asked three times, and the
slowest answer counts.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil

from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn, write_jsonl

STEPS, QUESTIONS, ROLLOUTS = 100, 250, 8
FILTERS = {
    "newest": "find",
    "by_reward": "find?sort=reward",
    "by_ending_and_operator": "find?ended=call_limit&operator=ScEnsemble&sort=tokens",
    "word_in_every_text": "find?text=observation",
    "word_in_few_texts": "find?text=needle",
    "text_of_none": "find?text=nowhere+to+be+found",
    "flips": "flips?before=run/train/1&after=run/train/100",
    "run": "run?source=run",
    "step": "step?source=run&part=train&step=50",
}


def trajectory(random: random.Random, question: int) -> Trajectory:
    def words(number: int) -> str:
        return " ".join(str(random.getrandbits(40)) for _ in range(number))

    turns = [
        Turn(
            text=words(30),
            tokens=(200 * turn, 200 * turn + 90),
            think=words(20),
            calls=[
                CallRecord(
                    operator=random.choice(["AnswerGenerate", "Review", "ScEnsemble"]),
                    input=words(15),
                    output=f"observation {words(45)}" + (" needle" if random.random() < 1e-4 else ""),
                    seconds=0.5,
                    prompt_tokens=300,
                    completion_tokens=100,
                )
            ],
            generate_seconds=0.4,
            operator_seconds=0.5,
        )
        for turn in range(3)
    ]
    right = float(random.random() < 0.5)
    return Trajectory(
        question=f"question {question}: {'which of them was it? ' * 3}",
        turns=[*turns, Turn(text="done", tokens=(600, 640), answer=words(2))],
        ended_by=random.choice([EndedBy.ANSWERED, EndedBy.CALL_LIMIT]),
        data_source=f"source_{question % 4}",
        golds=["gold"],
        reward={"reward": right, "acc": right, "f1": right},
    )


def write_step(run: Path, step: int) -> None:
    made = random.Random(step)
    folder = run / "trajectories" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    rows = (trajectory(made, question) for question in range(QUESTIONS) for _ in range(ROLLOUTS))
    write_jsonl(folder / f"{step}.jsonl", rows)


def timed(address: str) -> tuple[float, str]:
    started = time.perf_counter()
    with urlopen(address) as answer:
        content = answer.read().decode()
    return time.perf_counter() - started, content


@contextmanager
def viewing(run: Path, cache: Path) -> Iterator[tuple[str, psutil.Process, float]]:
    """The command's address, its process, and when it was started."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "workflow_r1.cli", "view", str(run), "--no-browser"]
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0], psutil.Process(process.pid), started
        finally:
            process.terminate()


def first_page(address: str, started: float) -> float:
    """Seconds from the start of the command to a page with trajectories of the newest step."""
    while f"step={STEPS}&amp;line=" not in timed(f"{address}find?step={STEPS}")[1]:
        time.sleep(0.02)
    return time.perf_counter() - started


def seconds_until_read(address: str) -> float:
    started = time.perf_counter()
    while (state := json.loads(timed(f"{address}state")[1]))["read"] < state["size"]:
        time.sleep(0.2)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, cache = Path(folder) / "run", Path(folder) / "cache"
        for step in range(1, STEPS + 1):
            write_step(run, step)
        size = sum(file.stat().st_size for file in run.rglob("*.jsonl"))
        with viewing(run, cache) as (address, process, started):
            first = first_page(address, started)
            while_reading = max(timed(address + FILTERS["by_reward"])[0] for _ in range(3))
            reading = seconds_until_read(address)
            memory_reading = process.memory_info().rss
        with viewing(run, cache) as (address, process, started):
            again = first_page(address, started)
            answers = {name: max(timed(address + filter)[0] for _ in range(3)) for name, filter in FILTERS.items()}
            write_step(run, STEPS + 1)
            written = time.perf_counter()
            while f"step={STEPS + 1}&amp;line=" not in timed(f"{address}find?step={STEPS + 1}")[1]:
                time.sleep(0.02)
            new_step = time.perf_counter() - written
            memory = process.memory_info().rss
            index = sum(file.stat().st_size for file in cache.rglob("*.sqlite"))
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "trajectories": STEPS * QUESTIONS * ROLLOUTS,
        "megabytes": round(size / 1e6),
        "first_page_s": round(first, 2),
        "first_page_again_s": round(again, 2),
        "all_read_s": round(reading, 1),
        "filter_while_reading_s": round(while_reading, 2),
        "answers_s": {name: round(seconds, 2) for name, seconds in answers.items()},
        "new_step_s": round(new_step, 2),
        "memory_mb": round(max(memory, memory_reading) / 1e6),
        "index_mb": round(index / 1e6),
    }
    print(json.dumps(result, indent=2))
    path = Path(__file__).parent / "results" / "view_speed.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
