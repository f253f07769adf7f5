"""Settings of verl that would be ignored, weaken a run or end it late are refused in one sentence."""

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from workflow_r1.runs.preflight import check_training, check_unread
from workflow_r1.runs.preflight.unread import UNREAD
from workflow_r1.runs.recipe import LaunchError

ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"


def refusal(check, config) -> str:
    with pytest.raises(LaunchError) as error:
        check(config)
    assert "\n" not in str(error.value)
    return str(error.value)


SMALL = {"trainer.total_training_steps": 4}


def test_the_recipes_pass(recipe, composed):
    check_training(recipe(SMALL))
    for config in composed.values():
        check_unread(config)


@pytest.mark.parametrize("name", UNREAD)
def test_a_setting_that_nothing_reads_is_refused_by_name(recipe, name):
    value, instead = UNREAD[name]
    changed = {bool: not value, type(None): "x"}.get(type(value), 3)
    message = refusal(check_unread, recipe({name: changed}))
    assert message == f"{name} does nothing in verl 0.9.1 with FSDP: leave it at {json.dumps(value)}; {instead}."


def test_what_nothing_reads_is_still_in_verls_tree_with_that_value():
    """When this fails, verl has changed a setting: see whether it is read now."""
    from verl import trainer

    with initialize_config_dir(f"{trainer.__path__[0]}/config", version_base=None):
        tree = compose("ppo_trainer")
    assert {name: OmegaConf.select(tree, name, throw_on_missing=True) for name in UNREAD} == {
        name: value for name, (value, _) in UNREAD.items()
    }


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trainer.use_v1": False}, "trainer.use_v1=False has no room for Workflow-R1's rollout"),
        (
            {"trainer.val_only": True, "trainer.val_before_train": False},
            "trainer.val_only=True is done before training",
        ),
        ({f"{ACTOR}.strategy": "megatron"}, f"{ACTOR}.strategy=megatron is not supported: take fsdp, fsdp2."),
        (
            {f"{ACTOR}.loss_agg_mode": "mean"},
            f"{ACTOR}.loss_agg_mode=mean is not supported: take token-mean, token-sum",
        ),
        ({f"{ACTOR}.kl_loss_type": "full"}, f"{ACTOR}.kl_loss_type=full is not supported: take kl, kl+, k1"),
        ({f"{ACTOR}.optim.lr_scheduler_type": "linear"}, "lr_scheduler_type=linear is not supported: take constant"),
        ({f"{ACTOR}.optim.optimizer": "Adamw"}, "cannot be made: module 'torch.optim' has no attribute 'Adamw'."),
        ({f"{ACTOR}.optim.optimizer_impl": "bitsandbytes.optim"}, "cannot be made: No module named 'bitsandbytes'."),
        ({f"{ACTOR}.optim.override_optimizer_config.epsilon": 1}, "unexpected keyword argument 'epsilon'."),
        ({f"{ACTOR}.optim.betas": [0.9, 1.5]}, "cannot be made: Invalid beta parameter at index 1: 1.5."),
        ({f"{ACTOR}.optim.lr": -1.0}, "cannot be made: Invalid learning rate: -1.0."),
        ({f"{MODEL}.use_liger": True}, f"{MODEL}.use_liger=True needs liger-kernel: pip install liger-kernel"),
        ({f"{ACTOR}.strategy": "fsdp"}, f"{ACTOR}.strategy=fsdp needs a GPU: take fsdp2"),
        ({"trainer.nnodes": 2}, "trainer.nnodes=2 needs GPUs"),
        ({"data.train_batch_size": 128}, "data.train_files hold fewer questions than one step takes"),
        ({"trainer.total_epochs": 0}, "or trainer.total_epochs is 0"),
        (
            {"trainer.total_epochs": 2, "trainer.total_training_steps": 9},
            "trainer.total_epochs=2 ends after 8 steps, without a last validation and checkpoint, where "
            "trainer.total_training_steps asks for 9: raise trainer.total_epochs.",
        ),
        ({f"{ACTOR}.ppo_mini_batch_size": 3}, f"=16 is no multiple of {ACTOR}.ppo_mini_batch_size=3"),
        ({f"{ACTOR}.ppo_mini_batch_size": 256}, f"=16 is no multiple of {ACTOR}.ppo_mini_batch_size=256"),
        ({"trainer.n_gpus_per_node": 6}, "The 64 trajectories of an update"),
        (
            {f"{ACTOR}.ppo_max_token_len_per_gpu": 256},
            f"{ACTOR}.ppo_max_token_len_per_gpu=256 does not hold the longest sequence, data.max_prompt_length + "
            "data.max_response_length = 320: raise it.",
        ),
        ({f"{ACTOR}.clip_ratio": 0.1}, f"{ACTOR}.clip_ratio=0.1 is overruled by clip_ratio_low=0.003"),
        ({f"{ACTOR}.loss_agg_mode": "token-sum"}, f"{ACTOR}.loss_agg_mode=token-sum does nothing"),
        ({"trainer.critic_warmup": 10}, "trainer.critic_warmup=10 would leave the policy as it is"),
        ({f"{ACTOR}.checkpoint.save_contents": ["modle"]}, "save_contents names modle: take some of model, optimizer"),
        ({f"{ACTOR}.checkpoint.save_contents": ["optimizer"]}, "save_contents leaves the weights out: add model"),
        ({f"{ACTOR}.checkpoint.load_contents": []}, "load_contents leaves the weights out: add model"),
        ({f"{ACTOR}.checkpoint.async_save": True}, "async_save=True is Megatron's"),
        (
            {f"{MODEL}.lora_rank": 8, f"{ACTOR}.checkpoint.save_contents": ["model", "hf_model"]},
            f"{MODEL}.lora_rank=8 under names that nothing reads",
        ),
        ({f"{MODEL}.lora_adapter_path": "/adapter"}, f"is read with {MODEL}.lora_rank above 0 only"),
        (
            {f"{MODEL}.lora_adapter_path": "/adapter", f"{MODEL}.lora_rank": 8},
            f"{MODEL}.lora_adapter_path names no adapter of PEFT: /adapter/adapter_config.json cannot be read",
        ),
    ],
)
def test_a_setting_that_would_spoil_the_run_is_refused_by_name(recipe, settings, sentence):
    assert sentence in refusal(check_training, recipe({**SMALL, **settings}))


@pytest.mark.parametrize(
    "settings",
    [
        {f"{ACTOR}.clip_ratio": 0.1, f"{ACTOR}.clip_ratio_low": None},
        {f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean", f"{ACTOR}.use_kl_loss": True},
        {"trainer.critic_warmup": 10, "algorithm.adv_estimator": "gae"},
        {f"{ACTOR}.checkpoint.save_contents": ["hf_model"], f"{ACTOR}.checkpoint.load_contents": ["hf_model"]},
        {f"{ACTOR}.checkpoint.save_contents": ["model"], f"{ACTOR}.checkpoint.load_contents": ["model"]},
        {"trainer.n_gpus_per_node": 2, f"{ACTOR}.ppo_mini_batch_size": 16},
        {"trainer.val_only": True},
        {f"{ACTOR}.kl_loss_type": "k3+", f"{ACTOR}.optim.lr_scheduler_type": "cosine"},
        {f"{ACTOR}.optim.optimizer": "SGD", f"{ACTOR}.optim.override_optimizer_config": None},
        {"data.train_files": "hdfs://far/away.parquet", "trainer.total_training_steps": 9_000},
    ],
)
def test_settings_that_work_pass(recipe, settings):
    check_training(recipe({**SMALL, **settings}))


@pytest.mark.parametrize(
    ("adapter", "refused"),
    [({"r": 8}, None), ({"use_rslora": True, "use_dora": False}, "use_rslora"), ({"alpha_pattern": {"q": 1}}, "alpha")],
)
def test_an_adapter_that_could_not_be_merged_afterwards_is_refused(recipe, tmp_path, adapter, refused):
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    config = recipe({**SMALL, f"{MODEL}.lora_rank": 8, f"{MODEL}.lora_adapter_path": str(tmp_path)})
    if refused is None:
        check_training(config)
    else:
        assert f"sets {refused}" in refusal(check_training, config)
