"""How long preparing takes at the size of the default source, 169,615 training and 51,713 test questions, and how long
a run's check of 100,000 rows takes.

    python benchmarks/data_speed.py

The questions are made up here, in the columns of the Hub dataset. Each figure is the median over fresh processes of
the whole command, imports included; nothing is downloaded, and nothing that verl's loader keeps is there yet. The
result is saved in results/data_speed.json.
"""

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

RUNS = 5
SIZES = {"train": {"nq": 79_168, "hotpotqa": 90_447}, "test": {"nq": 3_610, "hotpotqa": 7_405, "popqa": 40_698}}
SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "data_preprocess" / "workflow_r1.py"


def write_source(folder: Path) -> None:
    """Questions of 8 to 20 words with one to three gold answers."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(20_000)]
    for split, sizes in SIZES.items():
        rows = []
        for data_source, count in sizes.items():
            for _ in range(count):
                question = " ".join(rng.choices(words, k=rng.randint(8, 20))) + "?"
                answers = [" ".join(rng.choices(words, k=2)) for _ in range(rng.randint(1, 3))]
                rows.append(
                    {
                        "id": f"{split}_{len(rows)}",
                        "question": question,
                        "golden_answers": answers,
                        "data_source": data_source,
                        "prompt": [{"role": "user", "content": f"Answer the given question. Question: {question}"}],
                        "ability": "fact-reasoning",
                        "reward_model": {"ground_truth": {"target": answers}, "style": "rule"},
                        "extra_info": {"index": len(rows), "split": split},
                    }
                )
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")


CHECK = """
import sys
from workflow_r1.runs.preflight import check_data
from workflow_r1.runs.recipe import REFERENCE, compose_recipe, quoted
files = [f"data.{name}={quoted(file)}" for name, file in zip(("train_files", "val_files"), sys.argv[1:])]
check_data(compose_recipe(REFERENCE, files))
"""


def measure(source: Path, *options: str) -> dict[str, float]:
    """Of preparing `source`."""
    return _measure([str(SCRIPT), "--source", str(source), "--local-dir", f"{source}.out", *options])


def measure_check(prepared: Path) -> dict[str, float]:
    """Of what `train.sh` does with the rows of a prepared folder before a run."""
    return _measure(["-c", CHECK, str(prepared / "train.parquet"), str(prepared / "test.parquet")])


def _measure(arguments: Sequence[str]) -> dict[str, float]:
    """Medians of wall-clock and processor seconds; on a busy machine only the latter mean anything."""
    command = [sys.executable, *arguments]
    walls, processors = [], []
    for _ in range(RUNS):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as cache:
            environ = {**os.environ, "HF_DATASETS_CACHE": cache}
            subprocess.run(command, check=True, capture_output=True, env=environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.perf_counter() - started)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"wall_s": round(statistics.median(walls), 2), "cpu_s": round(statistics.median(processors), 2)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "questions"
        folder.mkdir()
        write_source(folder)
        result = {
            "runs": RUNS,
            "cpus": len(os.sched_getaffinity(0)),
            "load_average": round(os.getloadavg()[0], 1),
            "limit_s": 5.0,
            "rows_read": {split: sum(sizes.values()) for split, sizes in SIZES.items()},
            "10,000 training and all test rows": measure(folder),
            "10,000 training and 1,000 test rows": measure(folder, "--num-test", "1000"),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        }
        few = pq.read_table(folder / "train.parquet").slice(0, 11_000)
        pq.write_table(few, folder.with_suffix(".parquet"))
        result["11,000 rows in all"] = measure(folder.with_suffix(".parquet"))
        measure(folder, "--num-train", "90000", "--num-test", "10000")
        result["check of 90,000 training and 10,000 test rows"] = measure_check(Path(f"{folder}.out"))
    print(json.dumps(result, indent=2))
    path = Path(__file__).parent / "results" / "data_speed.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
