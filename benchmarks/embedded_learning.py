"""Does the embedded run learn? `train.sh` on several seeds, validation EM before and after.

    python benchmarks/embedded_learning.py            # seeds 1, 2 and 3, one after the other

For each seed: the wall time of the whole run, cold start included (a cached policy is not used), validation EM by data
source at the first and last validation, the largest difference between the trainer's and the sampler's probabilities,
and by step how far the turns' ratios spread, how many turns were clipped, and what `workflow_r1.watch` judges. Saves
results/embedded_learning.json beside this file and img/embedded_learning.png.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import matplotlib
import typer

from workflow_r1.runs.progress import read_metrics, validation_scores
from workflow_r1.runs.report import mean_scores, validation_steps
from workflow_r1.trajectory import read_jsonl
from workflow_r1.watch import CONDITIONS

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).parent / "results" / "embedded_learning.json"
PICTURE = ROOT / "img" / "embedded_learning.png"


def measure(seed: int, folder: Path) -> dict:
    """Train on one seed and read the figures off what the run left."""
    started = time.monotonic()
    command = [sys.executable, "-m", "workflow_r1.cli", "train", "--recipe", "workflow_r1_embedded"]
    subprocess.run(
        [*command, f"seed={seed}", f"trainer.default_local_dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        check=True,
    )
    seconds = time.monotonic() - started
    metrics = read_metrics(folder)
    steps = validation_steps(folder / "trajectories")
    files = [folder / "trajectories" / "val" / f"{step}.jsonl" for step in (steps[0], steps[-1])]
    before, after = (mean_scores(read_jsonl(file)) for file in files)
    key = "training/rollout_probs_diff_mean"
    differences = [data[key] for data in metrics.values() if key in data]
    return {
        "seed": seed,
        "seconds": round(seconds),
        "steps": len(differences),
        "before": before,
        "after": after,
        "em_gain": round(after["all"]["acc"] - before["all"]["acc"], 3),
        "rollout_probs_diff_mean_max": max(differences),
        "validation_em": {step: scores for step, data in metrics.items() if (scores := validation_scores(data))},
        "ratio_std": {step: data["actor/ratio_std"] for step, data in metrics.items() if "actor/ratio_std" in data},
        "clipped": {step: data["actor/pg_clipfrac"] for step, data in metrics.items() if "actor/pg_clipfrac" in data},
        "reward": {step: d["critic/score/mean"] for step, d in metrics.items() if "critic/score/mean" in d},
        "watched": {
            name: {step: data[name] for step, data in metrics.items() if name in data}
            for name in sorted({condition.metric for condition in CONDITIONS.values()})
        },
    }


def draw(results: list[dict]) -> None:
    """Validation EM by step, one line a seed, a panel a data source; training reward in the last panel."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sources = sorted({source for result in results for scores in result["validation_em"].values() for source in scores})
    figure, axes = pyplot.subplots(1, len(sources) + 1, figsize=(4 * (len(sources) + 1), 3.4), layout="constrained")
    for axis, source in zip(axes, sources, strict=False):
        for result in results:
            points = {int(step): scores[source] for step, scores in result["validation_em"].items()}
            axis.plot(list(points), list(points.values()), marker="o", label=f"seed {result['seed']}")
        axis.set(title=f"validation EM, {source}", xlabel="training step", ylim=(0, 1))
    for result in results:
        axes[-1].plot([int(step) for step in result["reward"]], list(result["reward"].values()))
    axes[-1].set(title="training reward", xlabel="training step")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].legend()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)


def main(seeds: Annotated[list[int] | None, typer.Argument(help="The seeds; 1, 2 and 3 by default.")] = None) -> None:
    results = []
    for seed in seeds or [1, 2, 3]:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(seed, Path(folder)))
        result = results[-1]
        print(f"seed {seed}: EM {result['before']['all']['acc']:.2f} -> {result['after']['all']['acc']:.2f}")
        print(f"  {result['seconds']} s, rollout_probs_diff_mean at most {result['rollout_probs_diff_mean_max']:.1e}")
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(results, indent=2) + "\n")
    draw(results)


if __name__ == "__main__":
    typer.run(main)
