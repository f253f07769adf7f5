"""A merged checkpoint is what was trained: in its precision, with its adapter."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from support.qwen_like_tokenizer import qwen_like_tokenizer
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import Qwen2Config, Qwen2ForCausalLM

from workflow_r1.verl_plugin.merge import PreciseMerger, UnmergeableError

Weights = dict[str, torch.Tensor]
RANK, ALPHA = 4, 16


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(qwen_like_tokenizer()),
        architectures=["Qwen2ForCausalLM"],
    )
    return Qwen2ForCausalLM(config)


@pytest.fixture
def save(model: Qwen2ForCausalLM, tmp_path: Path) -> Callable[..., Path]:
    """Write weights as verl's FSDP engine does: plain tensors on one rank, sharded ones on more."""

    def write(weights: Weights, ranks: int = 1) -> Path:
        shards = tmp_path / "global_step_1" / "actor"
        (shards / "huggingface").mkdir(parents=True)
        model.config.save_pretrained(shards / "huggingface")
        qwen_like_tokenizer().save_pretrained(shards / "huggingface")
        (shards / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
        for rank in range(ranks):
            part = weights if ranks == 1 else sharded(weights, ranks, rank)
            torch.save(part, shards / f"model_world_size_{ranks}_rank_{rank}.pt")
        return shards

    return write


def sharded(weights: Weights, ranks: int, rank: int) -> dict[str, DTensor]:
    """A rank's part of weights that are cut along their first dimension, the last part being the smallest."""
    init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
        return {
            name: DTensor.from_local(
                weight.chunk(ranks)[rank].clone(), mesh, [Shard(0)], shape=weight.shape, stride=weight.stride()
            )
            for name, weight in weights.items()
        }
    finally:
        destroy_process_group()


def merged(shards: Path) -> Weights:
    PreciseMerger(shards, shards.parent / "merged").merge_and_save()
    return load_file(shards.parent / "merged" / "model.safetensors")


def with_adapter(model: Qwen2ForCausalLM) -> PeftModel:
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return adapted


def note_scale(shards: Path) -> None:
    """As verl does beside the shards."""
    (shards / "lora_train_meta.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA, "task_type": "CAUSAL_LM"}))


def same(found: Weights, expected: Weights) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_merged_weights_are_those_that_were_trained(model, save, ranks, dtype):
    trained = {name: weight.to(dtype) for name, weight in model.state_dict().items()}
    shards = save(dict(trained), ranks)
    assert same(merged(shards), trained)
    config = json.loads((shards.parent / "merged" / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")
    loaded = Qwen2ForCausalLM.from_pretrained(shards.parent / "merged", dtype="auto")
    assert same(dict(loaded.state_dict()), trained)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_adapter_is_added_to_its_base(model, save, ranks):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained = with_adapter(model).state_dict()
    shards = save(dict(trained), ranks)
    note_scale(shards)
    after = merged(shards)
    assert after.keys() == before.keys()
    layers = [name for name in before if name.endswith("_proj.weight")]
    assert len(layers) == 2 * 7
    for name in before:
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        change = torch.zeros_like(before[name])
        if name in layers:
            up, down = (trained[f"{layer}.lora_{side}.default.weight"] for side in "BA")
            change = ALPHA / RANK * (up @ down)
            assert change.abs().mean() > 1
        assert torch.equal(after[name], before[name] + change), name


def test_the_merged_model_says_what_the_adapted_one_says(model, save):
    adapted = with_adapter(model).eval()
    tokens = torch.arange(20)[None]
    expected = adapted(tokens).logits
    shards = save(dict(adapted.state_dict()))
    note_scale(shards)
    merged(shards)
    loaded = Qwen2ForCausalLM.from_pretrained(shards.parent / "merged").eval()
    torch.testing.assert_close(loaded(tokens).logits, expected, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_was_saved_alone_finds_its_base(model, save, tmp_path):
    model.save_pretrained(tmp_path / "base")
    qwen_like_tokenizer().save_pretrained(tmp_path / "base")
    adapted = with_adapter(model)
    shards = save({name: weight for name, weight in adapted.state_dict().items() if "lora_" in name})
    note_scale(shards)
    with pytest.raises(UnmergeableError, match="it holds an adapter without its base"):
        merged(shards)
    made_by = {"actor_rollout_ref": {"model": {"path": str(tmp_path / "base")}}}
    OmegaConf.save(OmegaConf.create(made_by), shards.parent / "config.yaml")
    expected = {name: weight.clone() for name, weight in adapted.merge_and_unload().state_dict().items()}
    found = merged(shards)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_an_adapter_without_its_scale_is_not_taken_for_its_base(model, save):
    shards = save(dict(with_adapter(model).state_dict()))
    with pytest.raises(UnmergeableError, match=r"lora_train_meta\.json.* names no lora_alpha"):
        merged(shards)


def test_an_adapter_of_another_kind_is_not_dropped(model, save):
    weights = dict(with_adapter(model).state_dict())
    weights["base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.default.weight"] = torch.ones(48)
    shards = save(weights)
    note_scale(shards)
    with pytest.raises(UnmergeableError, match=r"more than lora_A and lora_B: it holds model.*lora_magnitude_vector"):
        merged(shards)


def test_verl_still_rounds_and_leaves_adapters_out():
    """When this fails, verl's merger has changed: see whether `PreciseMerger` is needed any more."""
    import inspect

    from verl.model_merger import base_model_merger, fsdp_model_merger

    source = inspect.getsource(fsdp_model_merger.FSDPModelMerger._load_and_merge_state_dicts)
    assert source.count(".bfloat16()") == 2
    assert "lora_params[lora_key] = state_dict.pop(name)" in inspect.getsource(
        base_model_merger.BaseModelMerger.save_lora_adapter
    )
