"""Batches that do not divide, or that the data does not hold, are a sentence before the run."""

import pytest

from workflow_r1.runs.preflight import check_batches
from workflow_r1.runs.recipe import LaunchError

ACTOR, ROLLOUT, REF = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "ref"))
SMALL = {"trainer.total_training_steps": 4}
FIXED = {f"{ACTOR}.use_dynamic_bsz": False, f"{ROLLOUT}.log_prob_use_dynamic_bsz": False}
SIZES = {f"{ACTOR}.ppo_micro_batch_size_per_gpu": 8, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 16}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
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
        (FIXED, f"{ACTOR}.ppo_micro_batch_size_per_gpu=None does not divide the 64 trajectories of each GPU"),
        (
            {**FIXED, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 8},
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=None does not divide the 128 trajectories",
        ),
        ({**FIXED, **SIZES, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 7}, "=7 does not divide the 64 trajectories"),
        ({**FIXED, **SIZES, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 0}, "=0 does not divide the 64 trajectories"),
        ({**FIXED, **SIZES, f"{ACTOR}.ppo_micro_batch_size_per_gpu": -8}, "=-8 does not divide the 64 trajectories"),
        ({**FIXED, **SIZES, f"{ACTOR}.use_kl_loss": True}, f"{REF}.log_prob_micro_batch_size_per_gpu=None does not"),
        ({"algorithm.use_kl_in_reward": True, f"{REF}.log_prob_use_dynamic_bsz": False}, f"{REF}.log_prob_micro"),
        ({f"{ACTOR}.use_dynamic_bsz": False}, f"{ROLLOUT}.log_prob_use_dynamic_bsz=True contradicts {ACTOR}"),
        (
            {**FIXED, **SIZES, "trainer.n_gpus_per_node": 2, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 64},
            "=64 does not divide the 32 trajectories of each GPU",
        ),
    ],
)
def test_what_does_not_divide_is_refused_by_name(recipe, settings, sentence):
    with pytest.raises(LaunchError) as error:
        check_batches(recipe({**SMALL, **settings}))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"trainer.n_gpus_per_node": 2, f"{ACTOR}.ppo_mini_batch_size": 16},
        {"data.train_files": "hdfs://far/away.parquet", "trainer.total_training_steps": 9_000},
        {**FIXED, **SIZES},
        {**FIXED, **SIZES, f"{ACTOR}.use_kl_loss": True, f"{REF}.log_prob_micro_batch_size_per_gpu": 128},
        {**FIXED, **SIZES, f"{ACTOR}.use_kl_loss": True, "actor_rollout_ref.model.lora_rank": 8},
        {**FIXED, **SIZES, "trainer.n_gpus_per_node": 2},
    ],
)
def test_what_divides_passes(recipe, settings):
    check_batches(recipe({**SMALL, **settings}))
