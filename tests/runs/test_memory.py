"""The memory arithmetic against sums made by hand, and what it refuses."""

import json
from copy import deepcopy
from functools import cache

import pytest
from transformers import AutoModelForCausalLM, Qwen2Config

from workflow_r1.runs.memory import GIB, estimate
from workflow_r1.runs.model_shape import QWEN, ModelShape, shape_of
from workflow_r1.runs.preflight import resources
from workflow_r1.runs.preflight.resources import check_cores, check_disk, check_gpus, check_memory
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, LaunchError, compose_recipe

SEVEN = shape_of("Qwen/Qwen2.5-7B-Instruct")
FSDP = "actor_rollout_ref.actor.fsdp_config"


compose = cache(lambda *overrides: compose_recipe(REFERENCE, list(overrides)))


def phases(*overrides: str, gpu: float = 79.6, flash: bool = True) -> dict[str, tuple[float, float]]:
    config = compose(*overrides)
    found = estimate(config, shape_of(config.actor_rollout_ref.model.path), gpu, flash)
    return {phase.name: (phase.gpu, phase.host) for phase in found.phases}


def test_the_parameters_of_the_models_are_the_published_ones():
    billions = {name.split("-")[1]: round(shape.parameters / 1e9, 3) for name, shape in QWEN.items()}
    assert billions == {"1.5B": 1.544, "3B": 3.086, "7B": 7.616, "14B": 14.77, "32B": 32.764}


@pytest.mark.parametrize("tied", [True, False])
def test_a_shape_counts_what_transformers_makes(tmp_path, tied):
    config = Qwen2Config(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=211,
        tie_word_embeddings=tied,
    )
    config.save_pretrained(tmp_path)
    made = AutoModelForCausalLM.from_config(config)
    assert shape_of(str(tmp_path)).parameters == sum(weight.numel() for weight in made.parameters())


def test_a_mixture_of_experts_is_not_guessed_at(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "num_experts": 4}))
    assert shape_of(str(tmp_path)) is None
    assert ModelShape.of({"hidden_size": 8}) is None


@pytest.mark.parametrize(("gpus", "resident", "trained"), [(2, 42.6, 56.7), (4, 21.3, 28.4), (8, 10.6, 14.2)])
def test_weights_gradients_and_adam_of_7b_by_hand(gpus, resident, trained):
    as_written = [f"{FSDP}.param_offload=false", f"{FSDP}.optimizer_offload=false"]
    found = phases("hardware=2x80", f"trainer.n_gpus_per_node={gpus}", *as_written, gpu=80)
    assert found["rollout"][0] == pytest.approx(resident + 0.7 * 80 + 1, abs=0.1)
    idle = phases(
        "hardware=2x80", f"trainer.n_gpus_per_node={gpus}", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=0"
    )
    gathered_and_reduced = 2 * (SEVEN.embedding + 2 * SEVEN.layer) / GIB + 6 * SEVEN.embedding / GIB
    assert idle["update"][0] == pytest.approx(trained + gathered_and_reduced + 2, abs=0.1)


def test_the_logits_of_18944_tokens_take_5_4_gib_a_copy():
    unfused = ["hardware=2x141", "actor_rollout_ref.model.use_fused_kernels=false"]
    [with_flash, without, entropy] = [
        phases(*unfused, flash=True)["update"][0],
        phases(*unfused, flash=False)["update"][0],
        phases(*unfused, "actor_rollout_ref.actor.entropy_coeff=0.01")["update"][0],
    ]
    assert without - with_flash == pytest.approx(5.37, abs=0.01)
    assert entropy - with_flash == pytest.approx(5.37, abs=0.01)


def test_a_checkpoint_of_7b_takes_91_gb_and_its_adapter_little():
    config = compose()
    assert estimate(config, SEVEN, 80, True).checkpoint * GIB / 1e9 == pytest.approx(91.4, abs=0.1)


@pytest.mark.parametrize(
    "choice",
    [
        ["hardware=1x24", "model=qwen2.5-1.5b", "lora=r32"],
        ["hardware=1x80"],
        ["hardware=1x80", "lora=r32"],
        ["hardware=2x80"],
        ["hardware=2x141"],
        ["hardware=4x48"],
        ["hardware=8x24"],
        ["hardware=8x80"],
        ["hardware=8x141", "model=qwen2.5-32b"],
    ],
    ids=" ".join,
)
def test_what_fits_is_let_through(choice):
    assert check_memory(compose(*choice), {}).startswith("by estimate at most ")


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (["hardware=1x24"], "vLLM has room for 0 tokens beside the weights, and one sequence takes up to 9,472: raise"),
        (["hardware=1x24", "lora=r32"], "of a GPU, which has 22.8"),
        (["hardware=2x80", "model=qwen2.5-14b"], "the phase 'update' takes 1"),
        (
            ["hardware=8x80", "model=qwen2.5-32b"],
            "which has 76.0: lower .*ppo_max_token_len_per_gpu=18944, or take lora=r32",
        ),
        (
            ["hardware=2x80", f"{FSDP}.optimizer_offload=false", f"{FSDP}.param_offload=false"],
            "the phase 'rollout' takes 96.8 GiB of a GPU, which has 76.0: set .*optimizer_offload=true",
        ),
        (["hardware=cpu"], "GiB of this machine's memory, which has 64: take lora=r32, a smaller model"),
    ],
)
def test_what_cannot_fit_is_refused_by_arithmetic(monkeypatch, choice, sentence):
    monkeypatch.setattr(resources, "_host_memory", lambda: 64.0)
    with pytest.raises(LaunchError, match=rf"^By estimate [^\n]*{sentence}[^\n]*\.$"):
        check_memory(compose(*choice), {})


def test_the_recipe_of_two_gpus_as_it_was_first_written_is_refused():
    """42.6 GiB that stay, and vLLM's half of 80 GB."""
    first = [f"{FSDP}.optimizer_offload=false", f"{FSDP}.param_offload=false"]
    with pytest.raises(LaunchError, match="phase 'rollout' takes"):
        check_memory(compose_recipe(REFERENCE, [*first, "actor_rollout_ref.rollout.gpu_memory_utilization=0.5"]), {})


@pytest.mark.parametrize(("hardware", "reserved"), [("1x80", 13), ("2x80", 16), ("8x80", 34)])
def test_too_few_cores_are_refused_with_the_number_that_verl_reserves(monkeypatch, hardware, reserved):
    config = deepcopy(compose(f"hardware={hardware}"))
    monkeypatch.setattr(resources, "_cores", lambda: reserved)
    assert check_cores(config, {}) == f"verl's actors reserve {reserved}, Ray counts {reserved}"
    monkeypatch.setattr(resources, "_cores", lambda: reserved - 1)
    with pytest.raises(LaunchError, match=rf"has {reserved - 1}, .* set ray_kwargs.ray_init.num_cpus={reserved},"):
        check_cores(config, {})
    config.ray_kwargs.ray_init.num_cpus = reserved
    check_cores(config, {})
    assert check_cores(config, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "those of a Ray cluster are not seen"


def test_cores_and_memory_of_a_container_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{3 * GIB}\n")
    assert (resources._cores(), resources._host_memory()) == (1, 3.0)
    (tmp_path / "memory.max").write_text("max\n")
    assert resources._host_memory() != 3.0


def test_the_embedded_run_fits_where_it_was_run():
    config = compose_recipe(EMBEDDED, [])
    assert check_gpus(config, {}) == "none is used"
    check_cores(config, {})
    assert check_memory(config, {}).startswith("not estimated")


def test_the_disk_has_to_hold_the_checkpoints(tmp_path, monkeypatch):
    config = compose_recipe(REFERENCE, [f"trainer.default_local_dir={tmp_path}/a/b"])
    free = 300 * GIB
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert check_disk(config, {}) == "3 checkpoints of 85.1 GiB at most, 300 GiB are free"
    free = 200 * GIB
    with pytest.raises(LaunchError, match=rf"^3 checkpoints of 85 GiB do not fit in the 200 GiB .* in {tmp_path}:"):
        check_disk(config, {})
    config.trainer.save_freq = -1
    assert check_disk(config, {}) == "no checkpoint is saved"


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A pretended nvidia-smi, given a line `total, used` in MiB for each GPU."""

    def pretend(*gpus: str) -> None:
        lines = "\n".join(
            f"echo '{number}, GPU-{number}, Pretended, {memory}, 580.95.05'" for number, memory in enumerate(gpus)
        )
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return pretend


def test_gpus_that_are_missing_taken_or_unused_are_named(smi):
    config = deepcopy(compose("hardware=2x80"))
    smi("81559, 4", "81559, 4")
    assert check_gpus(config, {}) == "2 × Pretended, driver 580.95.05"
    smi(*["81559, 4"] * 8)
    assert check_gpus(config, {}).endswith("; 6 more stay unused")
    smi("81559, 4", "81559, 40960")
    with pytest.raises(LaunchError, match=r"^Other processes hold 40.0 GiB of GPU 1 \(Pretended\), .* stop them"):
        check_gpus(config, {})
    with pytest.raises(LaunchError, match=r"^trainer.n_gpus_per_node=2, and 1 GPU\(s\) are visible here: name"):
        check_gpus(config, {"CUDA_VISIBLE_DEVICES": "0"})
    config.actor_rollout_ref.rollout.tensor_model_parallel_size = 4
    with pytest.raises(LaunchError, match=r"tensor_model_parallel_size=4 does not divide the 2 GPUs: set it to"):
        check_gpus(config, {})


def test_the_memory_of_the_gpus_that_are_there_counts(smi, monkeypatch):
    monkeypatch.setattr(resources, "_host_memory", lambda: 500.0)
    smi("49140, 4", "49140, 4")
    with pytest.raises(LaunchError, match=r"of a GPU, which has 48.0"):
        check_memory(compose("hardware=2x80"), {})
