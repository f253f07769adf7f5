"""The shape of a policy model, and how many parameters follow from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder as Hugging Face's `config.json` describes it.

    Attributes:
        hidden: width of the residual stream.
        intermediate: width of the gated MLP.
        heads: attention heads.
        kv_heads: heads of keys and values.
        head_dim: width of a head.
        tied: the output layer is the embedding.
        has_bias: queries, keys and values have biases, as Qwen2's have.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    has_bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ModelShape | None":
        """The shape that a `config.json` holds; None where it is no dense decoder."""
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        if any(not isinstance(config.get(name), int) for name in needed) or any("expert" in name for name in config):
            return None
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            has_bias=bool(config.get("attention_bias", config.get("model_type") == "qwen2")),
        )

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, the largest tensor."""
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        projections = sum(rows * columns for rows, columns in self._linear_layers)
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.has_bias else 0
        return projections + biases + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.embedding * (1 if self.tied else 2) + self.layers * self.layer + self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter of this rank on every linear layer."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self._linear_layers)

    @property
    def _linear_layers(self) -> list[tuple[int, int]]:
        queries, values = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, queries), (self.hidden, values), (self.hidden, values), (queries, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 3]


def _qwen(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> ModelShape:
    return ModelShape(hidden, intermediate, layers, heads, kv_heads, 128, vocabulary, hidden < 3000, True)


QWEN = {
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen(1536, 8960, 28, 12, 2, 151936),
    "Qwen/Qwen2.5-3B-Instruct": _qwen(2048, 11008, 36, 16, 2, 151936),
    "Qwen/Qwen2.5-7B-Instruct": _qwen(3584, 18944, 28, 28, 4, 152064),
    "Qwen/Qwen2.5-14B-Instruct": _qwen(5120, 13824, 48, 40, 8, 152064),
    "Qwen/Qwen2.5-32B-Instruct": _qwen(5120, 27648, 64, 40, 8, 152064),
}
"""Those that the recipes name, for a machine that does not reach the Hugging Face Hub."""


def shape_of(path: str) -> ModelShape | None:
    """The shape of the model in a folder or of that name; None where neither says it."""
    if path in QWEN:
        return QWEN[path]
    file = Path(path).expanduser() / "config.json"
    if file.is_file():
        return ModelShape.of(json.loads(file.read_text()))
    from transformers import AutoConfig

    try:
        return ModelShape.of(AutoConfig.from_pretrained(path).to_dict())
    except (OSError, ValueError, ImportError):
        return None
