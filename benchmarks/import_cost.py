"""What being installed costs a verl user who selects nothing of it: the time of `import verl` with and without.

    python benchmarks/import_cost.py

Both are timed in turns in fresh interpreters of one run; the figure is the difference of the medians. The result is
saved beside this file in results/import_cost.json.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 15
CODE = "import time; start = time.perf_counter(); import verl; print(time.perf_counter() - start)"


def seconds(plugins: str) -> float:
    environ = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": plugins}
    run = subprocess.run([sys.executable, "-c", CODE], env=environ, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main() -> None:
    seconds("auto")  # fills the page cache
    pairs = [(seconds("none"), seconds("auto")) for _ in range(RUNS)]
    without, with_plugin = (statistics.median(times) for times in zip(*pairs, strict=True))
    # The plug-in's own work, free of the noise of the seconds around it.
    own = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import verl"], capture_output=True, text=True, check=True
    ).stderr
    lines = [line for line in own.splitlines() if line.endswith("workflow_r1.verl_plugin")]
    own_ms = int(lines[0].split("|")[1]) / 1000
    result = {
        "runs": RUNS,
        "import_verl_without_s": round(without, 3),
        "import_verl_with_s": round(with_plugin, 3),
        "difference_ms": round(1000 * (with_plugin - without), 1),
        "importtime_of_the_plugin_ms": round(own_ms, 1),
    }
    print(json.dumps(result, indent=2))
    path = Path(__file__).parent / "results" / "import_cost.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
