"""Settings of verl's that a rollout, its reward or its advantage would ignore or contradict are refused by name."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import verl
import yaml
from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.preflight import check_rollouts
from workflow_r1.runs.preflight.rollouts import RULES
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, LaunchError, compose_recipe

VERL = Path(verl.__file__).parent
ROLLOUT, MULTI_TURN = "actor_rollout_ref.rollout", "actor_rollout_ref.rollout.multi_turn"
REFUSED = [
    "trainer.v1.trainer_mode=sync",
    "trainer.v1.trainer_mode=colocate_async",
    "trainer.v1.trainer_mode=separate_async",
    "trainer.v1.sampler.custom_sampler.name=null",
    "algorithm.filter_groups.max_num_gen_batches=many",
    "algorithm.rollout_correction.rollout_rs=token_k1",
    "algorithm.rollout_correction.rollout_rs=seq_mean_k1, token_k3",
    "algorithm.use_pf_ppo=true",
    "data.reward_fn_key=source",
    "data.truncation=left",
    "data.filter_overlong_prompts=true",
    "data.tokenizer=Qwen/Qwen2.5-7B-Instruct",
    "data.sampler.class_path=curriculum.py",
    "data.gen_batch_size=7",
    f"{ROLLOUT}.name=sglang",
    f"{ROLLOUT}.name=hf",
    f"{ROLLOUT}.mode=sync",
    f"{ROLLOUT}.n=0",
    f"{ROLLOUT}.temperature=0",
    f"{ROLLOUT}.do_sample=false",
    f"{ROLLOUT}.val_kwargs.do_sample=true",
    f"{ROLLOUT}.repetition_penalty=1.05",
    f"{ROLLOUT}.over_sample_rate=0.1",
    f"{ROLLOUT}.ignore_eos=true",
    f"{ROLLOUT}.prompt_length=100",
    f"{ROLLOUT}.max_model_len=8192",
    f"{ROLLOUT}.agent.num_workers=0",
    f"{ROLLOUT}.agent.default_agent_loop=tool_agent",
    f"{ROLLOUT}.agent.custom_async_server.path=server.py",
    f"{ROLLOUT}.trace.backend=weave",
    f"{MULTI_TURN}.enable=false",
    f"{MULTI_TURN}.max_user_turns=5",
    f"{MULTI_TURN}.max_assistant_turns=5",
    f"{MULTI_TURN}.max_parallel_calls=2",
    f"{MULTI_TURN}.max_tool_response_length=1024",
    f"{MULTI_TURN}.tool_response_truncate_side=left",
    f"{MULTI_TURN}.tool_config_path=tools.yaml",
    f"{MULTI_TURN}.function_tool_path=tools.py",
    f"{MULTI_TURN}.format=llama3_json",
    f"{MULTI_TURN}.use_inference_chat_template=true",
    f"{MULTI_TURN}.num_repeat_rollouts=4",
    "reward.custom_reward_function.path=reward.py",
    "reward.reward_model.enable=true",
    "reward.reward_manager.source=importlib",
    "reward.num_workers=0",
    "custom_reward_function.path=reward.py",
    "reward_model.reward_manager=dapo",
    "reward_model.model.path=some/model",
    "sandbox_fusion.url=http://sandbox",
]
ACCEPTED = [
    ["algorithm.rollout_correction.rollout_rs=seq_mean_k1,seq_max_k3"],
    ["algorithm.rollout_correction.rollout_rs=token_k1", "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"],
    ["algorithm.adv_estimator=gae", "algorithm.gamma=0.99", "algorithm.lam=0.95"],
    ["data.gen_batch_size=128"],
    [f"{ROLLOUT}.val_kwargs.do_sample=true", f"{ROLLOUT}.val_kwargs.temperature=0.7", f"{ROLLOUT}.val_kwargs.n=4"],
    [f"{ROLLOUT}.calculate_log_probs=false"],
    [f"{ROLLOUT}.max_model_len=9472"],
    ["data.max_prompt_length=2048", f"{ROLLOUT}.max_model_len=10240"],
    [
        f"{ROLLOUT}.agent.default_agent_loop=tool_agent",
        f"{MULTI_TURN}.function_tool_path=tools.py",
        f"{MULTI_TURN}.max_assistant_turns=5",
        "data.filter_overlong_prompts=true",
        "reward.reward_manager.name=naive",
    ],
    ["reward.reward_manager.name=naive", "reward.custom_reward_function.path=reward.py"],
    ["reward.reward_manager.source=importlib", "reward.reward_manager.module.path=rewards.py"],
    [f"{ROLLOUT}.agent.num_workers=1", "reward.num_workers=1"],
]


recipe = cache(lambda name: compose_recipe(name, []))


def config(*overrides: str) -> DictConfig:
    changed = deepcopy(recipe(REFERENCE))
    for override in overrides:
        name, _, value = override.partition("=")
        OmegaConf.update(changed, name, yaml.safe_load(value), force_add=True)
    return changed


@pytest.mark.parametrize("name", [REFERENCE, EMBEDDED])
def test_the_recipes_pass(name: str):
    check_rollouts(recipe(name))


FILTERING = "algorithm.filter_groups.enable=true"

REFUSED_TOGETHER = [
    ((f"{ROLLOUT}.n=1", FILTERING), "algorithm.filter_groups.enable=True compares the rollouts of a question"),
    ((FILTERING, "algorithm.filter_groups.metric=null"), "algorithm.filter_groups.metric=None names nothing"),
    ((FILTERING, "data.gen_batch_size=8"), "data.gen_batch_size=8 is not read where groups are filtered"),
    (
        ("trainer.v1.sampler.sync_refill_failed_groups=true", "data.gen_batch_size=8"),
        "data.gen_batch_size=8 is not read where groups are filtered or refilled",
    ),
    (
        (FILTERING, "reward.reward_manager.name=naive", "reward.reward_model.enable=true"),
        "reward.reward_model.enable_resource_pool=False scores after the groups are chosen",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED_TOGETHER)
def test_groups_are_filtered_and_refilled_as_asked_or_not_at_all(overrides, message):
    check_rollouts(config(FILTERING))
    check_rollouts(config("trainer.v1.sampler.sync_refill_failed_groups=true"))
    with pytest.raises(LaunchError, match=message):
        check_rollouts(config(*overrides))


def test_the_filter_goes_by_what_is_right_and_its_search_has_a_bound():
    groups = recipe(REFERENCE).algorithm.filter_groups
    assert (groups.enable, groups.metric, groups.max_num_gen_batches) == (False, "acc", 10)


@pytest.mark.parametrize("override", REFUSED)
def test_a_setting_that_would_do_nothing_or_harm_is_refused_by_name(override: str):
    with pytest.raises(LaunchError) as error:
        check_rollouts(config(override))
    message = str(error.value)
    setting = override.partition("=")[0].removesuffix(".class_path")
    assert message.startswith((f"{setting}=", f"{setting} "))
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_what_works_is_not_refused(overrides: list[str]):
    check_rollouts(config(*overrides))


def test_a_correction_needs_the_samplers_probabilities():
    settings = [f"{ROLLOUT}.calculate_log_probs=false", "algorithm.rollout_correction.rollout_is=sequence"]
    with pytest.raises(LaunchError, match=rf"{ROLLOUT}.calculate_log_probs=False leaves .*rollout_correction"):
        check_rollouts(config(*settings))


def test_every_rule_is_tried():
    tried = {override.partition("=")[0] for override in REFUSED} | {f"{ROLLOUT}.calculate_log_probs"}
    tried |= {message.partition("=")[0] for _, message in REFUSED_TOGETHER}
    assert not [name for name, _, _ in RULES if not any(setting.startswith(name) for setting in tried)]


@pytest.mark.parametrize(("name", "value"), [("max_turns", 0), ("max_parallel_calls", 0), ("truncate_side", "centre")])
def test_a_limit_that_does_not_fit_is_named_in_full(name: str, value: object):
    with pytest.raises(LaunchError, match=rf"does not fit: workflow_r1\.limits\.{name}: "):
        check_rollouts(config(f"workflow_r1.limits.{name}={value}"))


SHAPED = ("workflow_r1.endings.length_limit=shaped", "workflow_r1.endings.cache_length=300")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*SHAPED, "data.max_response_length=299"), "cache_length=300 is more than the 299 tokens of data.max_respo"),
        ((*SHAPED, "reward.reward_manager.name=naive"), "an ending is shaped by the reward manager workflow_r1 alone"),
    ],
)
def test_endings_are_shaped_within_the_response_by_our_reward_manager(overrides, message):
    check_rollouts(config(*SHAPED))
    with pytest.raises(LaunchError, match=message):
        check_rollouts(config(*overrides))


def test_the_values_at_which_verls_limits_are_left_are_verls():
    verls = OmegaConf.create(yaml.safe_load((VERL / "trainer/config/rollout/rollout.yaml").read_text())).multi_turn
    for name, test, sentence in RULES:
        if "workflow_r1.limits" in sentence and name.startswith(MULTI_TURN) and not name.endswith("enable"):
            assert test(verls[name.rpartition(".")[2]], recipe(REFERENCE)), name
