"""How long a megabyte of hostile text takes each of the functions that read what policies and operators write.

    python benchmarks/parsing_speed.py

The texts are those of tests/support/hostile_texts.py. Each figure is the least of several runs in processor seconds;
the worst text of each reader is saved in results/parsing_speed.json.
"""

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.hostile_texts import HOSTILE_TEXTS, READERS, SIZE  # noqa: E402

RUNS = 3


def seconds(reader: str, text: str) -> float:
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        READERS[reader](HOSTILE_TEXTS[text])
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    result: dict[str, object] = {"characters": SIZE, "texts": len(HOSTILE_TEXTS)}
    for reader in READERS:
        worst, text = max((seconds(reader, text), text) for text in HOSTILE_TEXTS)
        result[reader] = {"seconds": round(worst, 3), "worst": text}
    print(json.dumps(result, indent=2))
    path = ROOT / "benchmarks" / "results" / "parsing_speed.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
