"""Next-token prediction on demonstrations: the cold start that comes before reinforcement learning."""

import hashlib
import random
from collections.abc import Sequence

import torch
import transformers
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from workflow_r1.world.demonstrations import demonstrate
from workflow_r1.world.world import World

FINGERPRINTED = 500
Z_LOSS = 1e-4  # keeps the logits' normaliser near 0 (PaLM, arXiv 2204.02311, section 5), where float32 is finest
Sample = tuple[list[int], list[int]]
"""Token ids and mask of a demonstration, as `demonstrations.tokenise` lays them out."""


def imitate(model: PreTrainedModel, samples: Sequence[Sample], seed: int, peak_lr: float, tokens_per_step: int) -> None:
    """One pass of next-token prediction on the policy's own tokens: AdamW with a one-cycle learning rate."""
    batches = _batches(samples, seed, tokens_per_step)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=len(batches), pct_start=0.1)
    model.train()
    columns = TextColumn("cold start"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn()
    with Progress(*columns) as progress:
        if not progress.console.is_terminal:  # where no bar can be drawn
            progress.console.print(f"cold start: {len(samples):,} demonstrations, a few minutes")
        task = progress.add_task("", total=len(batches), state="")
        for batch in batches:
            ids, mask = _pad([ids for ids, _ in batch], 0), _pad([mask for _, mask in batch], 0).bool()
            # Right padding under a causal mask reaches no real token, so attention needs no mask of its own.
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, :-1][mask[:, 1:]])
            targets = ids[:, 1:][mask[:, 1:]]
            loss = cross_entropy(logits, targets)
            (loss + Z_LOSS * logits.logsumexp(-1).square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            accuracy = (logits.argmax(-1) == targets).float().mean()
            progress.update(task, advance=1, state=f"loss {loss:.2f}, token accuracy {accuracy:.1%}")
    model.eval()


def fingerprint(world: World, seed: int, version: int) -> str:
    """Of what a cold-started policy follows from, so that a stale one is not found in the cache.

    Args:
        version: of how the policy is made. What the world's demonstrations say is part of the fingerprint itself.
    """
    digest = hashlib.sha256(f"{world.seed} {seed} {version} {torch.__version__} {transformers.__version__}".encode())
    for demonstration in demonstrate(world, FINGERPRINTED):
        digest.update(repr(demonstration).encode())
    return digest.hexdigest()[:16]


def _batches(samples: Sequence[Sample], seed: int, tokens_per_step: int) -> list[list[Sample]]:
    """Batches of about `tokens_per_step` tokens; similar lengths together, so that little is padding."""
    rng = random.Random(seed)
    by_length = sorted(rng.sample(samples, len(samples)), key=lambda sample: len(sample[0]))
    batches: list[list[Sample]] = []
    batch: list[Sample] = []
    for sample in by_length:
        batch.append(sample)
        if len(batch) * len(sample[0]) >= tokens_per_step:
            batches.append(batch)
            batch = []
    if batch:
        batches.append(batch)
    rng.shuffle(batches)
    return batches


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
