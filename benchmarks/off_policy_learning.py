"""What corrections by turn, and old log-probs from the rollout, do to learning: embedded runs, an arm and a seed each.

    python benchmarks/off_policy_learning.py run            # all arms, seeds 1, 2 and 3; goes on where it was stopped
    python benchmarks/off_policy_learning.py run stale+turn --seeds 1
    python benchmarks/off_policy_learning.py report

On policy the sampler has the trainer's weights; in the arms named `stale` it gets them every fourth step
(stale_weights.py). Each finished run adds a line to results/off_policy_learning.jsonl: validation EM before and after,
the training reward by step, the mismatch by step, what was corrected, and the seconds of a step and of its parts.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from workflow_r1.runs.progress import read_metrics
from workflow_r1.runs.report import mean_scores, validation_steps
from workflow_r1.trajectory import read_jsonl

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "off_policy_learning.jsonl"
_CORRECTION = "algorithm.rollout_correction"
BYPASS = (f"{_CORRECTION}.bypass_mode=True",)
WEIGHTS = (f"{_CORRECTION}.rollout_is=turn",)
PRODUCT = (f"{_CORRECTION}.rollout_is=turn_product",)
REJECTION = (f"{_CORRECTION}.rollout_rs=turn_mean_k1", f"{_CORRECTION}.rollout_rs_threshold='0.99_1.01'")
ARMS: dict[str, Sequence[str]] = {
    "on_policy": (),
    "bypass": BYPASS,
    "stale": (),
    "stale+bypass": BYPASS,
    "stale+turn": WEIGHTS,
    "stale+turn_product": PRODUCT,
    "stale+rejection": REJECTION,
}
KEPT = (
    "critic/score/mean",
    "training/rollout_probs_diff_mean",
    "training/off_policy/trajectory_staleness/mean",
    "mismatch/eff_sample_size",
    "mismatch/k3",
    "actor/ratio_std",
    "actor/pg_clipfrac",
    "actor/grad_norm",
    "actor/entropy",
    "rollout_corr/rollout_is_eff_sample_size",
    "rollout_corr/rollout_rs_masked_fraction",
    "timing_s/step",
    "timing_s/gen",
    "timing_s/old_log_prob",
    "timing_s/update_actor",
)

app = typer.Typer(add_completion=False)


def measure(arm: str, seed: int, folder: Path) -> dict:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    if arm.startswith("stale"):
        environ["VERL_USE_EXTERNAL_MODULES"] = "stale_weights"
    command = [sys.executable, "-m", "workflow_r1.cli", "train", "--recipe", "workflow_r1_embedded", f"seed={seed}"]
    overrides = [f"trainer.default_local_dir={folder}", "trainer.save_freq=-1", *ARMS[arm]]
    subprocess.run([*command, *overrides], cwd=ROOT, env=environ, check=True)
    metrics = read_metrics(folder)
    steps = validation_steps(folder / "trajectories")
    files = [folder / "trajectories" / "val" / f"{step}.jsonl" for step in (steps[0], steps[-1])]
    before, after = (mean_scores(read_jsonl(file))["all"]["acc"] for file in files)
    by_step = {name: {step: data[name] for step, data in metrics.items() if name in data} for name in KEPT}
    return {"arm": arm, "seed": seed, "em_before": before, "em_after": after, **by_step}


def saved() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


@app.command()
def run(
    arms: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(ARMS)}; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="By commas.")] = "1,2,3",
) -> None:
    """Run what is not saved yet, seed by seed."""
    for seed in map(int, seeds.split(",")):
        for arm in arms or ARMS:
            if any((result["arm"], result["seed"]) == (arm, seed) for result in saved()):
                continue
            with tempfile.TemporaryDirectory() as folder:
                result = measure(arm, seed, Path(folder))
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
    report()


@app.command()
def report() -> None:
    """A line an arm: the mean and the range over its seeds."""
    print(f"{'arm':20} seeds  EM after          reward, last 6    least ESS  largest k3  log-probs of a step")
    for arm in ARMS:
        runs = [result for result in saved() if result["arm"] == arm]
        if not runs:
            continue
        ends = [statistics.fmean(list(result["critic/score/mean"].values())[-6:]) for result in runs]
        least = min(min(result["mismatch/eff_sample_size"].values()) for result in runs)
        largest = max(max(result["mismatch/k3"].values()) for result in runs)
        part = statistics.median(
            result["timing_s/old_log_prob"][step] / seconds
            for result in runs
            for step, seconds in result["timing_s/step"].items()
        )
        em = [result["em_after"] for result in runs]
        print(
            f"{arm:20} {len(runs):5}  {_spread(em):16}  {_spread(ends):16}  {least:9.3f}  {largest:10.1e}  {part:.1%}"
        )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    app()
