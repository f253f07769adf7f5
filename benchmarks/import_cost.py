"""What being installed costs a verl user who selects nothing of it: the time of `import verl` with and without.

    python benchmarks/import_cost.py

Both are timed in turns in fresh interpreters of one run; the figure is the difference of the medians, beside the time
that loading the plug-in alone takes. The result is saved beside this file in results/import_cost.json.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 15
# Without the plug-in verl still looks for entry points: a name that none has lets it look and load nothing.
WITHOUT, WITH = "none-of-that-name", "auto"
IMPORT_VERL = "import time; start = time.perf_counter(); import verl; print(time.perf_counter() - start)"
# The plug-in's own work, free of the noise of the seconds around it.
LOAD_PLUGIN = """import time, verl
from importlib.metadata import entry_points
[plugin] = entry_points(group="verl.plugins", name="workflow_r1")
start = time.perf_counter(); plugin.load(); print(time.perf_counter() - start)"""


def seconds(code: str, plugins: str) -> float:
    environ = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": plugins}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main() -> None:
    seconds(IMPORT_VERL, WITH)  # fills the page cache
    rounds = [
        (seconds(IMPORT_VERL, WITHOUT), seconds(IMPORT_VERL, WITH), seconds(LOAD_PLUGIN, WITHOUT)) for _ in range(RUNS)
    ]
    without, with_plugin, own = (statistics.median(times) for times in zip(*rounds, strict=True))
    result = {
        "runs": RUNS,
        "import_verl_without_s": round(without, 3),
        "import_verl_with_s": round(with_plugin, 3),
        "difference_ms": round(1000 * (with_plugin - without), 1),
        "loading_the_plugin_ms": round(1000 * own, 1),
    }
    print(json.dumps(result, indent=2))
    path = Path(__file__).parent / "results" / "import_cost.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
