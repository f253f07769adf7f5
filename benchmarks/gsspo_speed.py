"""Time and peak memory of the GSsPO loss against verl's `gspo`, forward and backward, metrics included.

    python benchmarks/gsspo_speed.py

Both losses run in one process by turns on the same tensors: 64 responses of 9472 tokens, 20 sub-sequences each. How
much of a response the observations take up matters to GSsPO, which only touches the policy's tokens, so there are two
layouts: observations of a fifth of the tokens, and the worst case, observations of one token. Time is the median over
the rounds; memory is the highest sum of live allocations on top of the inputs. Exits with 1 where GSsPO takes more
than 1.25 times gspo's time or memory. Writes results/gsspo_speed.json.
"""

import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import ActorConfig

import workflow_r1.verl_plugin.gsspo_loss  # noqa: F401  (registers gsspo)

RESPONSES, TOKENS, SUBSEQUENCES = 64, 9472, 20
OBSERVATION_SHARES = {"a fifth observations": 0.2, "one-token observations": 0.0}
WARM_UP, ROUNDS = 3, 25
LIMIT = 1.25
RESULT = Path(__file__).parent / "results" / "gsspo_speed.json"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_batch(observation_share: float) -> dict[str, torch.Tensor]:
    """Random log-probs of two close policies, one advantage a response, evenly laid out turns."""
    torch.manual_seed(0)
    period = TOKENS // SUBSEQUENCES
    turn = min(period - 1, round(period * (1 - observation_share)))
    position = torch.arange(TOKENS)
    row = (position % period < turn) & (position < period * SUBSEQUENCES)
    mask = row.expand(RESPONSES, TOKENS).contiguous()
    log_prob = torch.randn(RESPONSES, TOKENS) - 3
    old_log_prob = log_prob + 0.01 * torch.randn(RESPONSES, TOKENS)
    advantages = torch.randn(RESPONSES, 1) * mask
    batch = {"log_prob": log_prob, "old_log_prob": old_log_prob, "advantages": advantages, "response_mask": mask}
    batch = {name: tensor.to(DEVICE) for name, tensor in batch.items()}
    batch["log_prob"].requires_grad_()
    return batch


def forward_backward(loss_mode: str, batch: dict[str, torch.Tensor], config: ActorConfig) -> None:
    batch["log_prob"].grad = None
    loss, _ = get_policy_loss_fn(loss_mode)(**batch, loss_agg_mode="seq-mean-token-mean", config=config)
    loss.backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak_bytes(loss_mode: str, batch: dict[str, torch.Tensor], config: ActorConfig) -> int:
    """The highest sum of live allocations during one forward and backward, inputs not counted."""
    batch["log_prob"].grad = None
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward_backward(loss_mode, batch, config)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        forward_backward(loss_mode, batch, config)
    events = profiler.profiler.kineto_results.events()
    live = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()  # negative where memory is given back
        peak = max(peak, live)
    return peak


def measure(observation_share: float) -> dict[str, float]:
    config = ActorConfig(strategy="fsdp", rollout_n=8, ppo_micro_batch_size_per_gpu=RESPONSES)
    config.global_batch_info.update(dp_size=1, global_batch_size=RESPONSES)
    batch = make_batch(observation_share)
    seconds: dict[str, list[float]] = {"gspo": [], "gsspo": []}
    for _ in range(WARM_UP + ROUNDS):
        for loss_mode, times in seconds.items():
            start = time.perf_counter()
            forward_backward(loss_mode, batch, config)
            times.append(time.perf_counter() - start)
    medians = {loss_mode: 1e3 * statistics.median(times[WARM_UP:]) for loss_mode, times in seconds.items()}
    peaks = {loss_mode: peak_bytes(loss_mode, batch, config) / 2**20 for loss_mode in seconds}
    return {
        "valid_tokens": int(batch["response_mask"].sum()),
        "gspo_ms": medians["gspo"],
        "gsspo_ms": medians["gsspo"],
        "time_ratio": medians["gsspo"] / medians["gspo"],
        "gspo_peak_mib": peaks["gspo"],
        "gsspo_peak_mib": peaks["gsspo"],
        "memory_ratio": peaks["gsspo"] / peaks["gspo"],
    }


def main() -> int:
    layouts = {name: measure(share) for name, share in OBSERVATION_SHARES.items()}
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    result = {
        "shape": {"responses": RESPONSES, "tokens": TOKENS, "subsequences_per_response": SUBSEQUENCES},
        "rounds": ROUNDS,
        "limit": LIMIT,
        "device": device,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "verl": version("verl")},
        "layouts": {n: {key: round(value, 3) for key, value in figures.items()} for n, figures in layouts.items()},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    table = Table("layout", "loss", "ms", "peak MiB", title=f"forward + backward, {RESPONSES}x{TOKENS}, {device}")
    for name, figures in layouts.items():
        table.add_row(name, "gspo", f"{figures['gspo_ms']:.1f}", f"{figures['gspo_peak_mib']:.1f}")
        table.add_row("", "gsspo", f"{figures['gsspo_ms']:.1f}", f"{figures['gsspo_peak_mib']:.1f}")
        table.add_row("", "ratio", f"{figures['time_ratio']:.2f}", f"{figures['memory_ratio']:.2f}", end_section=True)
    Console().print(table)
    return int(any(max(f["time_ratio"], f["memory_ratio"]) > LIMIT for f in layouts.values()))


if __name__ == "__main__":
    sys.exit(main())
