"""The recipe's choices: hardware, model, objective, LoRA and Search, each with each."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from workflow_r1.config import WorkflowConfig
from workflow_r1.runs import preflight
from workflow_r1.runs.cpu_environment import cpu_environment
from workflow_r1.runs.gpus import all_gpus, chosen_hardware, visible_gpus
from workflow_r1.runs.recipe import CONFIG_DIR, EMBEDDED, REFERENCE, LaunchError, compose_recipe

GROUPS = {
    "hardware": ["cpu", "1x24", "1x80", "2x80", "2x141", "4x48", "8x24", "8x80", "8x141"],
    "model": [f"qwen2.5-{size}b" for size in ("1.5", "3", "7", "14", "32")],
    "objective": ["gsspo", "gspo", "grpo"],
    "lora": ["none", "r32"],
    "search": ["none", "operator"],
}
DEPENDENT = list(itertools.product(*(GROUPS[group] for group in ("hardware", "model", "lora"))))
INDEPENDENT = itertools.cycle(itertools.product(GROUPS["objective"], GROUPS["search"]))
EVERY = [
    (hardware, model, objective, lora, search)
    for (hardware, model, lora), (objective, search) in zip(DEPENDENT, INDEPENDENT, strict=False)
]
"""Every hardware with every model and adapter; objective and Search share no setting with those, and take turns."""
A_FEW = EVERY[::11]


def composed(choice: tuple[str, ...]) -> DictConfig:
    return compose_recipe(REFERENCE, [f"{group}={name}" for group, name in zip(GROUPS, choice, strict=True)])


def check(choice: tuple[str, ...]) -> None:
    config = composed(choice)
    hardware, model, objective, lora, search = choice
    for check_settings in (preflight.check_unread, preflight.check_numbers):
        check_settings(config)
    preflight.check_rollouts(config)
    actor, workflow = config.actor_rollout_ref.actor, WorkflowConfig.parse(config)
    assert omega_conf_to_dataclass(actor.policy_loss).loss_mode == {"grpo": "vanilla"}.get(objective, objective)
    assert config.algorithm.adv_estimator == ("gsspo" if objective == "gsspo" else "grpo")
    assert (config.actor_rollout_ref.model.lora_rank > 0) == (lora == "r32")
    assert ("Search" in workflow.pool.specs()) == (search == "operator")
    assert config.trainer.n_gpus_per_node == (1 if hardware == "cpu" else int(hardware[0]))
    assert config.trainer.experiment_name == f"{model.replace('-', '_')}_{objective}"
    assert actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size >= 1280 + 8192
    assert config.actor_rollout_ref.rollout.max_model_len == 1280 + 8192
    assert config.trainer.max_actor_ckpt_to_keep == 2


def files_of(group: str) -> dict[str, Path]:
    return {file.stem: file for file in (CONFIG_DIR / group).glob("*.yaml")}


def settings_of(group: str) -> set[str]:
    """Every setting that one of the group's files holds."""

    def names(node: dict[str, Any], place: str = "") -> Iterator[str]:
        for key, value in node.items():
            yield from names(value, f"{place}{key}.") if isinstance(value, dict) else [f"{place}{key}"]

    contents = (yaml.safe_load(file.read_text()) or {} for file in files_of(group).values())
    return {name for content in contents for name in names(content)} - {"defaults"}


def test_the_choices_are_these():
    found = {group: set(files_of(group)) for group in GROUPS}
    assert found == {group: {*names, *(["gpu"] if group == "hardware" else [])} for group, names in GROUPS.items()}


@pytest.mark.parametrize("group", ["objective", "search"])
def test_objective_and_search_share_no_setting_with_another_choice(group):
    for other in GROUPS.keys() - {group}:
        assert settings_of(group).isdisjoint(settings_of(other))


def check_as_verl(choice: tuple[str, ...]) -> None:
    config = composed(choice)
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert not need_critic(config)


@pytest.mark.parametrize("choice", A_FEW, ids="-".join)
def test_a_choice_of_each_holds_together(choice):
    check(choice)
    if "r32" not in choice:  # verl asks vLLM about a LoRA rank, and that takes long to import
        check_as_verl(choice)


@pytest.mark.slow
def test_every_combination_passes_verls_validation_and_ours(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(cpu_environment(tmp_path, {})["PYTHONPATH"])  # where vLLM is called vLLM
    for choice in EVERY:
        check(choice)
        check_as_verl(choice)


@pytest.fixture
def gpus(tmp_path, monkeypatch) -> Iterator[Path]:
    """A pretended nvidia-smi, for GPUs of the memory in MiB that the file holds, a line each."""
    file = tmp_path / "mebibytes"
    (tmp_path / "nvidia-smi").write_text(
        f"""#!/bin/sh
n=0
while read mib; do
  echo "$n, GPU-$n$n, NVIDIA Pretended, $mib, 10, 580.95.05"; n=$((n+1))
done < {file}
"""
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return file


@pytest.fixture(scope="module")
def reference() -> DictConfig:
    return compose_recipe(REFERENCE, [])


@pytest.mark.parametrize(
    ("memory", "number", "choice"),
    [
        (24564, 1, "1x24"),  # RTX 4090
        (23028, 1, "1x24"),  # A10
        (49140, 1, "1x24"),  # one RTX A6000: what fits 24 GB fits it
        (81559, 1, "1x80"),  # H100
        (81920, 2, "2x80"),  # A100
        (143771, 2, "2x141"),  # H200
        (95830, 2, "2x80"),  # H100 NVL
        (46068, 4, "4x48"),  # L40S
        (81559, 4, "4x48"),
        (23034, 8, "8x24"),  # L4
        (49140, 8, "8x24"),
        (81559, 8, "8x80"),
        (183359, 8, "8x141"),  # B200
    ],
)
def test_the_choice_that_fits_the_machine_is_taken(gpus, reference, memory, number, choice):
    gpus.write_text(f"{memory}\n" * number)
    assert len(all_gpus()) == number
    assert chosen_hardware(reference, [], {}) == choice


@pytest.mark.parametrize(
    ("memory", "number", "remedy"),
    [
        (81559, 6, "train on 4 of them, with CUDA_VISIBLE_DEVICES=0,1,2,3 for hardware=4x48, or name one yourself"),
        (81559, 3, "train on 2 of them, with CUDA_VISIBLE_DEVICES=0,1 for hardware=2x80,"),
        (24564, 2, "train on 1 of them, with CUDA_VISIBLE_DEVICES=0 for hardware=1x24,"),
        (24564, 4, "train on 1 of them"),
        (81559, 7, "train on 4 of them"),
        (81559, 16, "train on 8 of them"),
        (11264, 8, "take other GPUs, or name one yourself"),
    ],
)
def test_a_machine_that_no_choice_fits_is_told_which_does(gpus, reference, memory, number, remedy):
    gpus.write_text(f"{memory}\n" * number)
    with pytest.raises(LaunchError, match=rf"^No hardware choice of the recipes \(1x24, .* fits {number} GPU") as error:
        chosen_hardware(reference, [], {})
    assert remedy in str(error.value)


def test_the_smallest_of_unlike_gpus_counts(gpus, reference):
    gpus.write_text("143771\n81559\n")
    assert chosen_hardware(reference, [], {}) == "2x80"


def test_what_is_named_or_hidden_is_not_chosen(gpus, reference):
    gpus.write_text("81559\n" * 6)
    assert chosen_hardware(reference, ["hardware=2x141"], {}) is None
    assert chosen_hardware(compose_recipe(EMBEDDED, []), [], {}) is None
    assert chosen_hardware(reference, [], {"CUDA_VISIBLE_DEVICES": "1,GPU-44"}) == "2x80"
    assert [gpu.index for gpu in visible_gpus({"CUDA_VISIBLE_DEVICES": "1,GPU-44"})] == [1, 4]
    assert chosen_hardware(compose_recipe(REFERENCE, counted := ["trainer.n_gpus_per_node=2"]), counted, {}) == "2x80"


def test_memory_that_the_driver_does_not_tell_is_not_taken_for_zero(gpus):
    gpus.write_text("[N/A]\n")
    assert all_gpus()[0].total is None
