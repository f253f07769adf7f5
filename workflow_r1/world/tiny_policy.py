"""A policy small enough for a CPU: a Qwen3 shape of a million parameters, cold-started on demonstrations.

What it leaves out: pre-training. It reads and writes only the world's language, so everything that it learns here are
the habits of the demonstrations, good and bad, and copying names. Reinforcement learning does the rest.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from workflow_r1.system.cache_dir import made_once
from workflow_r1.world.demonstrations import Demonstration, demonstrate, tokenise
from workflow_r1.world.imitation import fingerprint, imitate
from workflow_r1.world.tokenizer import build_tokenizer
from workflow_r1.world.world import World

VERSION = 1
"""Of how the policy is made: raised with any change to it here, in `imitation` or in `tokenizer`."""

DEMONSTRATIONS = 16_000
PEAK_LR = 3e-3
TOKENS_PER_STEP = 1_024


def ensure_tiny_policy(world: World, cache_dir: Path, seed: int = 0) -> Path:
    """The directory of the cold-started policy for `world`, made now or found in `cache_dir`.

    It is an ordinary Hugging Face checkpoint: config.json, model.safetensors, tokenizer with chat template,
    generation_config.json.
    """
    name = f"tiny-policy-{fingerprint(world, seed, VERSION)}"
    return made_once(cache_dir / name, lambda folder: cold_start(world, folder, DEMONSTRATIONS, seed))


def cold_start(world: World, path: Path, count: int, seed: int) -> None:
    """Train a policy from scratch on `count` demonstrations and save it to `path`."""
    examples = list(demonstrate(world, count))
    tokenizer = build_tokenizer(vocabulary(world, examples))
    model = new_model(tokenizer, seed)
    with _one_thread():
        imitate(model, [tokenise(example, tokenizer) for example in examples], seed, PEAK_LR, TOKENS_PER_STEP)
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """A second one gains nothing on matrices this small, and spins where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
