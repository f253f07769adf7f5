"""Settings of verl that would be ignored, weaken a run or end it late are refused in one sentence."""

import json

import pytest

from workflow_r1.runs.preflight import check_training
from workflow_r1.runs.recipe import LaunchError

ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"


def refusal(config) -> str:
    with pytest.raises(LaunchError) as error:
        check_training(config)
    assert "\n" not in str(error.value)
    return str(error.value)


SMALL = {"trainer.total_training_steps": 4}


def test_the_recipe_passes(recipe):
    check_training(recipe(SMALL))


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
        ({"model_engine": "megatron"}, "model_engine=megatron cannot be mixed with the recipes, which are FSDP's"),
        (
            {"trainer.device": "cuda", f"{ACTOR}.ulysses_sequence_parallel_size": 2},
            f"{ACTOR}.ulysses_sequence_parallel_size=2 needs flash-attn, which is not installed",
        ),
        ({f"{ACTOR}.clip_ratio": 0.1}, f"{ACTOR}.clip_ratio=0.1 is overruled by clip_ratio_low=0.003"),
        ({f"{ACTOR}.loss_agg_mode": "token-sum"}, f"{ACTOR}.loss_agg_mode=token-sum does nothing"),
        ({"trainer.critic_warmup": 10}, "trainer.critic_warmup=10 would leave the policy as it is"),
        ({"critic.enable": True}, "trains a critic that algorithm.adv_estimator=gsspo does not read: leave it null"),
        ({"critic.enable": True, "algorithm.adv_estimator": "grpo"}, "algorithm.adv_estimator=grpo does not read"),
        (
            {"critic.enable": False, "algorithm.adv_estimator": "gae"},
            "reads a critic's values: leave critic.enable null",
        ),
        (
            {"algorithm.adv_estimator": "gae"},
            "There is no model at '~/models/deepseek-llm-7b-chat': set critic.model.path",
        ),
        ({"algorithm.adv_estimator": "gae", "critic.model.path": None}, "No model is named: set critic.model.path"),
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
    assert sentence in refusal(recipe({**SMALL, **settings}))


@pytest.mark.parametrize(
    "settings",
    [
        {f"{ACTOR}.clip_ratio": 0.1, f"{ACTOR}.clip_ratio_low": None},
        {f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean", f"{ACTOR}.use_kl_loss": True},
        {f"{ACTOR}.checkpoint.save_contents": ["hf_model"], f"{ACTOR}.checkpoint.load_contents": ["hf_model"]},
        {f"{ACTOR}.checkpoint.save_contents": ["model"], f"{ACTOR}.checkpoint.load_contents": ["model"]},
        {"trainer.val_only": True},
        {f"{ACTOR}.kl_loss_type": "k3+", f"{ACTOR}.optim.lr_scheduler_type": "cosine"},
        {f"{ACTOR}.optim.optimizer": "SGD", f"{ACTOR}.optim.override_optimizer_config": None},
    ],
)
def test_settings_that_work_pass(recipe, settings):
    check_training(recipe({**SMALL, **settings}))


@pytest.mark.parametrize("enable", [None, True])
def test_the_advantage_of_a_critic_has_one(recipe, tmp_path, enable):
    (tmp_path / "config.json").write_text("{}")
    critic = {"critic.enable": enable, "critic.model.path": str(tmp_path), "trainer.critic_warmup": 10}
    check_training(recipe({**SMALL, **critic, "algorithm.adv_estimator": "gae"}))


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
        assert f"sets {refused}" in refusal(config)
