"""Time of credit and metrics by turn, and of both together with the correction by turn, against verl's own correction.

    python benchmarks/credit_speed.py

All run in one process by turns on the tensors of `correction_speed.py`: 4,096 responses of 9,472 tokens, in 512
groups, 20 turns each with a reward and one of 30 states. Time is the median over the rounds. Exits with 1 where
correction, rejection, metrics and credit by turn take more than 1.2 times verl's correction by sequence. Writes
results/credit_speed.json.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from correction_speed import CORRECTIONS, LIMIT, RESPONSES, ROUNDS, WARM_UP, make_batch, seconds_of
from gsspo_speed import SUBSEQUENCES, TOKENS
from rich.console import Console
from rich.table import Table

from workflow_r1.credit import ESTIMATORS
from workflow_r1.gsspo import find_subsequences
from workflow_r1.turn_metrics import mismatch_metrics, turn_means, turn_sums
from workflow_r1.verl_plugin.gsspo_loss import compute_gsspo_advantage

GROUPS, STATES = 512, 30
METRICS = "metrics by turn"
RESULT = Path(__file__).parent / "results" / "credit_speed.json"


def credit_inputs(mask: torch.Tensor) -> dict:
    """What the trainer passes: a reward at the end of each turn, and what it started from."""
    ends = mask.clone()
    ends[:, :-1] &= 1 - mask[:, 1:]
    states = torch.randint(STATES, (RESPONSES, SUBSEQUENCES)).tolist()
    return {
        "token_level_rewards": ends * torch.randn(RESPONSES, TOKENS),
        "response_mask": mask,
        "index": np.repeat([f"question {number}" for number in range(GROUPS)], RESPONSES // GROUPS),
        "turn_mask": mask,
        "states": [[(None, ("Search", f"query {state}")) for state in response] for response in states],
    }


def seconds_of_credit(name: str, inputs: dict) -> float:
    started = time.perf_counter()
    compute_gsspo_advantage(**inputs, config={"gsspo_credit": name, "gsspo_discount": 0.9})
    return time.perf_counter() - started


def seconds_of_metrics(batch: dict[str, torch.Tensor], advantages: torch.Tensor) -> float:
    """Those of the mismatch, and the sums that the loss reports of its turns."""
    started = time.perf_counter()
    mask, old = batch["response_mask"], batch["old_log_probs"]
    mismatch_metrics(old, batch["rollout_log_probs"], advantages, mask)
    runs = find_subsequences(mask)
    ratio = runs.mean(runs.tokens(old))
    turn_means(turn_sums(runs, dict.fromkeys(("tokens", "advantage", "clip_fraction", "deviation", "square"), ratio)))
    return time.perf_counter() - started


def main() -> int:
    batch = make_batch()
    inputs = credit_inputs(batch["response_mask"])
    seconds: dict[str, list[float]] = {name: [] for name in (*CORRECTIONS, *ESTIMATORS, METRICS)}
    for _ in range(WARM_UP + ROUNDS):
        for name, settings in CORRECTIONS.items():
            seconds[name].append(seconds_of(settings, batch))
        for name in ESTIMATORS:
            seconds[name].append(seconds_of_credit(name, inputs))
        seconds[METRICS].append(seconds_of_metrics(batch, inputs["token_level_rewards"]))
    medians = {name: statistics.median(times[WARM_UP:]) for name, times in seconds.items()}
    verl, turn = (medians[name] for name in CORRECTIONS)
    ratio = (turn + max(medians[name] for name in ESTIMATORS) + medians[METRICS]) / verl
    result = {
        "shape": {
            "responses": RESPONSES,
            "tokens": TOKENS,
            "turns_per_response": SUBSEQUENCES,
            "groups": GROUPS,
            "states": STATES,
        },
        "rounds": ROUNDS,
        "threads": torch.get_num_threads(),
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(ratio, 3),
        "limit": LIMIT,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = Table("what", "s", title=f"{RESPONSES:,} x {TOKENS:,} tokens, {SUBSEQUENCES} turns each")
    for name, value in medians.items():
        kind = "correction " if name in CORRECTIONS else "credit " if name in ESTIMATORS else ""
        table.add_row(f"{kind}{name}", f"{value:.2f}")
    table.add_row("correction by turn, the dearest credit and the metrics, ratio", f"{ratio:.2f}")
    Console().print(table)
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
