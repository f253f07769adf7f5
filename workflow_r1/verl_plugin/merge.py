"""From the shards of verl's FSDP engine to one Hugging Face folder: `python -m workflow_r1.verl_plugin.merge`.

verl 0.9.1's own merger does the rest. It would round the weights to bfloat16, and save a LoRA adapter beside its base,
which it leaves as it was before the training.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.distributed.tensor import DTensor

from workflow_r1.runs.checkpoints import CONFIG_FILE
from workflow_r1.verl_plugin.upstream import FSDPModelMerger, ModelMergerConfig

Weights = dict[str, torch.Tensor]


class UnmergeableError(ValueError):
    """Why shards cannot become one model: a sentence."""


class PreciseMerger(FSDPModelMerger):
    """verl's merger for FSDP, with the weights as they were trained.

    Args:
        shards: verl's `global_step_N/actor`.
        target: the folder to write.
    """

    def __init__(self, shards: Path, target: Path):
        target.mkdir(parents=True, exist_ok=True)
        super().__init__(
            ModelMergerConfig(
                operation="merge",
                backend="fsdp",
                local_dir=str(shards),
                hf_model_config_path=str(shards / "huggingface"),
                target_dir=str(target),
            )
        )
        self._shards, self._target = shards, target

    def merge_and_save(self) -> None:
        super().merge_and_save()
        path = self._target / "config.json"
        config = json.loads(path.read_text())  # it names the bfloat16 of the model without weights that verl has made
        path.write_text(json.dumps({**config, "dtype": str(self._dtype).removeprefix("torch.")}, indent=2))

    def _load_and_merge_state_dicts(
        self, world_size: int, total_shards: int, mesh_shape: Any, mesh_dim_names: Any
    ) -> Weights:
        """In the shards' own precision; of replicas only the first, as in verl's (fsdp_model_merger.py:163)."""
        names = [f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(total_shards)]
        shards = [torch.load(self._shards / name, map_location="cpu", weights_only=False) for name in names]
        merged = {name: self._merged(name, [shard.pop(name) for shard in shards]) for name in list(shards[0])}
        self._dtype = next(iter(merged.values())).dtype
        return merged

    def _merged(self, name: str, parts: list[Any]) -> torch.Tensor:
        if not isinstance(parts[0], DTensor):
            if not all(torch.equal(part, parts[0]) for part in parts[1:]):  # FSDP keeps it whole on every rank
                raise UnmergeableError(f"the ranks' shards disagree on {name}, which each has whole")
            return parts[0]
        return self._merge_by_placement([part._local_tensor for part in parts], parts[0].placements[-1])

    def save_lora_adapter(self, state_dict: Weights) -> None:
        """Add an adapter to its base, in `state_dict`; verl's way to export it (base_model_merger.py:306)."""
        if not any("lora_" in name for name in state_dict):
            return
        scale: Any = self._load_lora_train_meta() or {}
        if not scale.get("lora_alpha"):
            raise UnmergeableError(
                "its lora_train_meta.json, which verl writes, is missing or names no lora_alpha, and without it "
                "the adapter's scale is not known"
            )
        weights = {_plain(name): weight for name, weight in state_dict.items()}
        state_dict.clear()
        state_dict.update(fold_adapter(weights, scale["lora_alpha"], self._base))

    def _base(self) -> Weights:
        """The model from which a run with `checkpoint.save_lora_only` started."""
        made_by = self._shards.parent / CONFIG_FILE
        if not made_by.is_file():
            raise UnmergeableError("it holds an adapter without its base")
        path = OmegaConf.select(OmegaConf.create(made_by.read_text()), "actor_rollout_ref.model.path")
        return self.get_transformers_auto_model_class().from_pretrained(path, dtype=self._dtype).state_dict()


def _plain(name: str) -> str:
    """The name that a weight of a PEFT model has in its base model."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def fold_adapter(weights: Weights, alpha: float, base: Callable[[], Weights]) -> Weights:
    """Every layer's weight plus its adapter's product: W + alpha/r · B·A, in W's precision, added up in float32.

    Args:
        weights: of a PEFT model, with the names of its base model; `lora_A` is r × in, `lora_B` out × r.
        alpha: the adapter's `lora_alpha`.
        base: where the other weights come from if `weights` holds an adapter alone.

    Raises:
        UnmergeableError: the adapter is more than such products, or has no layer to be added to.
    """
    factors = {name: weight for name, weight in weights.items() if ".lora_A." in name or ".lora_B." in name}
    folded = {name: weight for name, weight in weights.items() if name not in factors} or base()
    if others := [name for name in folded if "lora_" in name or "modules_to_save" in name]:
        raise UnmergeableError(f"its adapter is more than lora_A and lora_B: it holds {others[0]}")
    for name in [name for name in factors if ".lora_A." in name]:
        layer, _, adapter = name.partition(".lora_A.")
        down, up = factors[name], factors[f"{layer}.lora_B.{adapter}"]
        weight = folded.get(f"{layer}.weight")
        if weight is None:
            raise UnmergeableError(f"its adapter has no layer {layer} to be added to")
        change = alpha / down.shape[0] * (up.float() @ down.float())
        folded[f"{layer}.weight"] = (weight.float() + change).to(weight.dtype)
    return folded


if __name__ == "__main__":
    try:
        PreciseMerger(Path(sys.argv[1]), Path(sys.argv[2])).merge_and_save()
    except UnmergeableError as error:
        sys.exit(str(error))
