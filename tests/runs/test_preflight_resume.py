"""A resumed run is told before it starts what its checkpoint does not fit, or would keep."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from workflow_r1.runs.preflight import check_resume
from workflow_r1.runs.recipe import LaunchError

OPTIM, CHECKPOINT, MODEL = (f"actor_rollout_ref.{name}" for name in ("actor.optim", "actor.checkpoint", "model"))


@pytest.fixture
def checkpoint(recipe, tmp_path: Path) -> Path:
    """What one GPU saved with the embedded recipe's own settings."""
    folder = tmp_path / "run" / "global_step_2"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    for name in ("model", "optim", "extra_state"):
        (folder / "actor" / f"{name}_world_size_1_rank_0.pt").touch()
    (folder / "data.pt").touch()
    config = recipe({"trainer.default_local_dir": str(folder.parent)})
    OmegaConf.resolve(config)
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def refusal(config, checkpoint: Path) -> str:
    with pytest.raises(LaunchError) as error:
        check_resume(config, checkpoint)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_same_settings_resume(recipe, checkpoint):
    check_resume(recipe(), checkpoint)
    check_resume(recipe(), None)


@pytest.mark.parametrize(
    "settings",
    [
        {"trainer.total_training_steps": 100, "trainer.save_freq": 1},
        {"actor_rollout_ref.actor.clip_ratio_low": 0.1, "actor_rollout_ref.actor.kl_loss_coef": 0.01},
        {f"{OPTIM}.lr_warmup_steps": 3, f"{OPTIM}.clip_grad": 0.5},
        {"data.train_batch_size": 32, "data.max_response_length": 512},
    ],
)
def test_what_takes_effect_on_resuming_may_change(recipe, checkpoint, settings):
    check_resume(recipe(settings), checkpoint)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("lr", 1e-6, "lr is 1e-06 here and 0.0007 there"),
        ("betas", [0.9, 0.95], "betas is [0.9, 0.95] here and [0.9, 0.999] there"),
        ("weight_decay", 0.1, "weight_decay is 0.1 here and 0.0 there"),
        ("optimizer", "SGD", 'optimizer is "SGD" here and "AdamW" there'),
        (
            "override_optimizer_config",
            {"eps": 1e-8},
            'override_optimizer_config is {"eps": 1e-08} here and {"eps": 0.0001} there',
        ),
    ],
)
def test_what_the_optimizers_state_would_keep_is_said(recipe, checkpoint, setting, value, said):
    message = refusal(recipe({f"{OPTIM}.{setting}": value}), checkpoint)
    assert f"{OPTIM}.{said}" in message
    assert f"or add {CHECKPOINT}.load_contents=[model] for this start" in message
    check_resume(recipe({f"{OPTIM}.{setting}": value, f"{CHECKPOINT}.load_contents": ["model"]}), checkpoint)


@pytest.mark.parametrize(
    ("setting", "value"), [("seed", 7), ("shuffle", False), ("train_max_samples", 32), ("train_files", ["/other"])]
)
def test_what_the_place_in_the_data_would_keep_is_said(recipe, checkpoint, setting, value):
    message = refusal(recipe({f"data.{setting}": value}), checkpoint)
    assert f"(data.{setting} is {json.dumps(value)} here" in message
    assert f"or remove {checkpoint / 'data.pt'} to begin the data anew" in message
    (checkpoint / "data.pt").unlink()
    check_resume(recipe({f"data.{setting}": value}), checkpoint)


def test_a_validation_alone_needs_no_optimizer_and_no_data(recipe, checkpoint):
    check_resume(recipe({"trainer.val_only": True, f"{OPTIM}.lr": 1.0, "data.seed": 9}), checkpoint)


def test_a_folder_that_was_moved_holds_the_same_data(recipe, checkpoint):
    made_by = OmegaConf.load(checkpoint / "config.yaml")
    made_by.data.train_files = ["/old/place/data [[]1]/train.parquet"]  # as verl, which globs, is told
    made_by.trainer.default_local_dir = "/old/place"
    OmegaConf.save(made_by, checkpoint / "config.yaml")
    moved = {"data.train_files": "/new/data [1]/train.parquet", "trainer.default_local_dir": "/new"}
    check_resume(recipe(moved), checkpoint)


@pytest.mark.parametrize(("setting", "value"), [("lora_rank", 8), ("target_modules", ["q_proj"])])
def test_weights_of_another_shape_are_said(recipe, checkpoint, setting, value):
    assert f"holds weights of another shape ({MODEL}.{setting} is" in refusal(
        recipe({f"{MODEL}.{setting}": value}), checkpoint
    )


def test_another_number_of_gpus_is_said(recipe, checkpoint):
    message = refusal(recipe({"trainer.n_gpus_per_node": 2, "trainer.nnodes": 2}), checkpoint)
    assert "was saved by 1 GPU(s) and verl resumes on as many, not on 4: set trainer.n_gpus_per_node" in message


def test_the_other_fsdp_is_said(recipe, checkpoint):
    message = refusal(recipe({"actor_rollout_ref.actor.strategy": "fsdp"}), checkpoint)
    assert "was saved with FSDP2 and actor_rollout_ref.actor.strategy is fsdp" in message


def test_files_that_are_not_there_are_named(recipe, checkpoint):
    (checkpoint / "actor" / "optim_world_size_1_rank_0.pt").unlink()
    message = refusal(recipe(), checkpoint)
    assert "lacks optim_world_size_1_rank_0.pt" in message
    check_resume(recipe({f"{CHECKPOINT}.load_contents": ["model", "extra"]}), checkpoint)
    (checkpoint / "actor" / "fsdp_config.json").write_text("")
    assert "has no readable fsdp_config.json" in refusal(recipe(), checkpoint)


def test_a_checkpoint_of_another_verl_run_has_no_settings_to_compare(recipe, checkpoint):
    (checkpoint / "config.yaml").unlink()
    check_resume(recipe({f"{OPTIM}.lr": 1.0}), checkpoint)


def test_another_models_weights_are_not_gone_on_with(recipe, checkpoint):
    made_by = OmegaConf.load(checkpoint / "config.yaml")
    made_by.actor_rollout_ref.model.path = "/models/one"
    OmegaConf.save(made_by, checkpoint / "config.yaml")
    check_resume(recipe({f"{MODEL}.path": "/moved/one"}), checkpoint)
    check_resume(recipe(), checkpoint)  # the embedded run names its policy itself
    assert 'path is "two" here and "one" there' in refusal(recipe({f"{MODEL}.path": "org/two"}), checkpoint)
    assert "lora_alpha is 99 here" in refusal(recipe({f"{MODEL}.lora_alpha": 99}), checkpoint)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"world_size": null, "FSDP_version": 2}', "{torn"])
def test_a_torn_note_of_a_checkpoint_is_a_sentence(recipe, checkpoint, text):
    (checkpoint / "actor" / "fsdp_config.json").write_text(text)
    assert "has no readable fsdp_config.json" in refusal(recipe(), checkpoint)


@pytest.mark.parametrize("text", ["a: [", "a: ${", "\t"])
def test_a_torn_configuration_of_a_checkpoint_is_a_sentence(recipe, checkpoint, text):
    (checkpoint / "config.yaml").write_text(text)
    assert "cannot be read" in refusal(recipe(), checkpoint)
