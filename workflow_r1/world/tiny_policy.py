"""A policy small enough for a CPU: a Qwen3 shape of a million parameters, cold-started on demonstrations.

What it leaves out: pre-training. It reads and writes only the world's language, so everything that it learns here are
the habits of the demonstrations, good and bad, and copying names. Reinforcement learning does the rest.
"""

import hashlib
import inspect
import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers
from filelock import FileLock
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from workflow_r1.world import demonstrations, tokenizer
from workflow_r1.world.demonstrations import Demonstration, demonstrate, tokenise
from workflow_r1.world.tokenizer import build_tokenizer
from workflow_r1.world.world import World

DEMONSTRATIONS = 16_000
FINGERPRINTED = 500
TOKENS_PER_STEP = 1_024
PEAK_LR = 3e-3
Z_LOSS = 1e-4  # keeps the logits' normaliser near 0 (PaLM, arXiv 2204.02311, section 5), where float32 is finest
Sample = tuple[list[int], list[int]]


def ensure_tiny_policy(world: World, cache_dir: Path, seed: int = 0) -> Path:
    """The directory of the cold-started policy for `world`, made now or found in `cache_dir`.

    It is an ordinary Hugging Face checkpoint: config.json, model.safetensors, tokenizer with chat template,
    generation_config.json. What it follows from names its directory, so that a stale one is not found.
    """
    path = cache_dir / f"tiny-policy-{_fingerprint(world, seed)}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # of two runs that start at once, one makes it and the other waits
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            cold_start(world, unfinished, DEMONSTRATIONS, seed)
            unfinished.rename(path)
    return path


def cold_start(world: World, path: Path, count: int, seed: int) -> None:
    """Train a policy from scratch on `count` demonstrations and save it to `path`."""
    examples = list(demonstrate(world, count))
    tokenizer = build_tokenizer(vocabulary(world, examples))
    model = new_model(tokenizer, seed)
    train(model, [tokenise(example, tokenizer) for example in examples], seed)
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    transformers.utils.logging.disable_progress_bar()  # five megabytes need none
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def vocabulary(world: World, demonstrations: Iterable[Demonstration]) -> set[str]:
    """Texts with every word that the policy has to read or write."""
    names = {name for names in world.entities.values() for name in names}
    said = {text for one in demonstrations for text in (one.question, *one.turns, *one.observations)}
    return names | said


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """An untrained model for `tokenizer`.

    Qwen3, because for Qwen2 transformers insists on Qwen2's own word splitting. vLLM's CPU attention takes heads of 32
    and up.

    No padding rows in the embedding: verl has vLLM leave them out of its softmax, and the trainer does not.

    Attention starts out as copying: value and output projections are the identity, and the embedding is tied. So the
    model has to learn where to look, but not how to repeat what it sees there, and copies names within a minute.
    """
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            initializer_range=0.06,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for layer in model.model.layers:
        torch.nn.init.eye_(layer.self_attn.v_proj.weight)
        torch.nn.init.eye_(layer.self_attn.o_proj.weight)
    return model


def train(model: Qwen3ForCausalLM, samples: Sequence[Sample], seed: int) -> None:
    """One pass of next-token prediction on the policy's own tokens: AdamW with a one-cycle learning rate."""
    batches = _batches(samples, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=len(batches), pct_start=0.1)
    model.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one gains nothing on matrices this small, and spins where cores are shared
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
    torch.set_num_threads(threads)
    model.eval()


def _batches(samples: Sequence[Sample], seed: int) -> list[list[Sample]]:
    """Batches of about TOKENS_PER_STEP tokens; similar lengths together, so that little is padding."""
    rng = random.Random(seed)
    by_length = sorted(rng.sample(samples, len(samples)), key=lambda sample: len(sample[0]))
    batches: list[list[Sample]] = []
    batch: list[Sample] = []
    for sample in by_length:
        batch.append(sample)
        if len(batch) * len(sample[0]) >= TOKENS_PER_STEP:
            batches.append(batch)
            batch = []
    if batch:
        batches.append(batch)
    rng.shuffle(batches)
    return batches


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _fingerprint(world: World, seed: int) -> str:
    """Of the code that makes a policy, and of what its first demonstrations say: they show a change anywhere below."""
    digest = hashlib.sha256(f"{world.seed} {seed} {torch.__version__} {transformers.__version__}".encode())
    for module in (inspect.getmodule(_fingerprint), demonstrations, tokenizer):
        assert module is not None
        digest.update(inspect.getsource(module).encode())
    for demonstration in demonstrate(world, FINGERPRINTED):
        digest.update(repr(demonstration).encode())
    return digest.hexdigest()[:16]
