"""Time of the off-policy correction by turn against verl's own by sequence: weights, rejection and metrics together.

    python benchmarks/correction_speed.py

Both run in one process by turns on the same tensors, through verl's `compute_rollout_correction_and_add_to_batch`:
4,096 responses of 9,472 tokens, 20 turns each, a fifth of them observations. Time is the median over the rounds.
Exits with 1 where the correction by turn takes more than 1.2 times verl's time. Writes results/correction_speed.json.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from gsspo_speed import SUBSEQUENCES, TOKENS
from rich.console import Console
from rich.table import Table
from verl import DataProto
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch

import workflow_r1.verl_plugin.rollout_correction  # noqa: F401  (adds the options by turn)

RESPONSES = 4096
WARM_UP, ROUNDS = 1, 5
LIMIT = 1.2
RESULT = Path(__file__).parent / "results" / "correction_speed.json"
CORRECTIONS = {
    "by sequence (verl)": {"rollout_is": "sequence", "rollout_rs": "seq_mean_k3", "rollout_rs_threshold": 0.01},
    "by turn": {"rollout_is": "turn", "rollout_rs": "turn_mean_k3", "rollout_rs_threshold": 0.01},
}


def make_batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    period = TOKENS // SUBSEQUENCES
    position = torch.arange(TOKENS)
    row = (position % period < round(0.8 * period)) & (position < period * SUBSEQUENCES)
    old = torch.randn(RESPONSES, TOKENS) - 3
    rollout = old + 0.01 * torch.randn(RESPONSES, TOKENS)
    mask = row.to(torch.int64).expand(RESPONSES, TOKENS).contiguous()
    return {"old_log_probs": old, "rollout_log_probs": rollout, "response_mask": mask}


def seconds_of(settings: dict, batch: dict[str, torch.Tensor]) -> float:
    data = DataProto.from_dict(tensors=dict(batch))
    started = time.perf_counter()
    compute_rollout_correction_and_add_to_batch(data, RolloutCorrectionConfig(**settings))
    return time.perf_counter() - started


def main() -> int:
    batch = make_batch()
    seconds: dict[str, list[float]] = {name: [] for name in CORRECTIONS}
    for _ in range(WARM_UP + ROUNDS):
        for name, settings in CORRECTIONS.items():
            seconds[name].append(seconds_of(settings, batch))
    medians = {name: statistics.median(times[WARM_UP:]) for name, times in seconds.items()}
    verl, turn = medians.values()
    result = {
        "shape": {"responses": RESPONSES, "tokens": TOKENS, "turns_per_response": SUBSEQUENCES},
        "rounds": ROUNDS,
        "threads": torch.get_num_threads(),
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(turn / verl, 3),
        "limit": LIMIT,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = Table("correction", "s", title=f"{RESPONSES:,} x {TOKENS:,} tokens, {SUBSEQUENCES} turns each")
    for name, value in medians.items():
        table.add_row(name, f"{value:.2f}")
    table.add_row("ratio", f"{turn / verl:.2f}")
    Console().print(table)
    return int(turn / verl > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
