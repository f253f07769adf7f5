"""The rollouts and their reward: no setting of verl's that they ignore or contradict, and none that cannot work.

What is listed was read in verl 0.9.1's code; settings that it does not read at all are here too, where users set them.
"""

import json
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.config import ConfigError, WorkflowConfig
from workflow_r1.data.verl_rows import AGENT_LOOP
from workflow_r1.runs.recipe import LaunchError

REWARD_MANAGER = "workflow_r1"
_ROLLOUT, _MULTI_TURN = "actor_rollout_ref.rollout", "actor_rollout_ref.rollout.multi_turn"

Test = Callable[[Any, DictConfig], bool]


def _is(*values: Any) -> Test:
    return lambda value, _: value in values


def _positive(value: Any, _: DictConfig) -> bool:
    return value is not None and value > 0


def _unless(condition: Callable[[DictConfig], bool], test: Test) -> Test:
    return lambda value, config: not condition(config) or test(value, config)


def _ours(config: DictConfig) -> bool:
    return config.actor_rollout_ref.rollout.agent.default_agent_loop == AGENT_LOOP


GSSPO_LOSSES = ("gsspo", "gsspo_soft")


def _our_reward(config: DictConfig) -> bool:
    return config.reward.reward_manager.name == REWARD_MANAGER


def _our_advantage(config: DictConfig) -> bool:
    return config.algorithm.adv_estimator == "gsspo"


def _our_loss(config: DictConfig) -> bool:
    return config.actor_rollout_ref.actor.policy_loss.loss_mode in GSSPO_LOSSES


def _filters(config: DictConfig) -> bool:
    return config.algorithm.filter_groups.enable


def _refills(config: DictConfig) -> bool:
    return config.trainer.v1.sampler.sync_refill_failed_groups


def _keeps_turns_whole(rejection: Any, _: DictConfig) -> bool:
    return not any(option.strip().startswith("token_") for option in (rejection or "").split(","))


def _holds_the_longest(length: Any, config: DictConfig) -> bool:
    rollout = config.actor_rollout_ref.rollout
    return length is None or length >= rollout.prompt_length + rollout.response_length


def _corrects_nothing(config: DictConfig) -> bool:
    correction = config.algorithm.rollout_correction
    return correction.rollout_is is None and correction.rollout_rs is None


# (setting, what it must be, what is wrong otherwise and what to do)
RULES: tuple[tuple[str, Test, str], ...] = (
    # The trainer that stops for a budget, the buffer that counts what is lost.
    (
        "trainer.v1.trainer_mode",
        _is("workflow_r1"),
        "has no stop at a budget, a failing endpoint or lost rollouts: leave it at workflow_r1",
    ),
    (
        "trainer.v1.sampler.custom_sampler.name",
        _is("WorkflowReplayBuffer"),
        "has no operator limits and no records of trajectories: leave it at WorkflowReplayBuffer",
    ),
    # The groups that are filtered and refilled.
    (
        "algorithm.filter_groups.enable",
        lambda on, config: not on or config.actor_rollout_ref.rollout.n > 1,
        f"compares the rollouts of a question: take {_ROLLOUT}.n=2 or more, or leave it False",
    ),
    (
        "algorithm.filter_groups.metric",
        lambda metric, config: not _filters(config) or (isinstance(metric, str) and metric != ""),
        "names nothing to compare rollouts by: take acc, or another part of the reward",
    ),
    (
        "algorithm.filter_groups.max_num_gen_batches",
        lambda number, _: isinstance(number, int),
        "is no number of batches: take 10, or 0 for no bound",
    ),
    (
        "reward.reward_model.enable_resource_pool",
        lambda has, config: has or not (_filters(config) and config.reward.reward_model.enable),
        "scores after the groups are chosen, and algorithm.filter_groups.enable=True needs the scores: set it to True",
    ),
    (
        "data.gen_batch_size",
        lambda size, config: size in (None, 1) or not (_filters(config) or _refills(config)),
        "is not read where groups are filtered or refilled, one question at a time: leave it null",
    ),
    # The advantage and the loss.
    (
        "algorithm.rollout_correction.rollout_rs",
        _unless(_our_loss, _keeps_turns_whole),
        "takes single tokens out of a turn, which gsspo would then read as two turns: reject whole responses with one "
        "of the seq_... options",
    ),
    (
        "algorithm.use_pf_ppo",
        _unless(_our_advantage, _is(False)),
        "is read for adv_estimator=gae alone: leave it False",
    ),
    # The data.
    (
        "data.reward_fn_key",
        _is("data_source"),
        "is not read by verl's V1 trainer: rename that column of the files to data_source",
    ),
    (
        "data.truncation",
        _is("error"),
        "is not read by verl 0.9.1: leave it at error, and raise data.max_prompt_length",
    ),
    (
        "data.filter_overlong_prompts",
        _unless(_ours, _is(False)),
        "would leave rows out by their length without the run's system message: leave it False; the prompts are "
        "measured before the run",
    ),
    ("data.tokenizer", _is(None), "is not read by verl 0.9.1: set actor_rollout_ref.model.tokenizer_path"),
    ("data.sampler", _is(None), "is not read by verl 0.9.1: data.shuffle and data.seed make the order"),
    (
        "data.gen_batch_size",
        lambda size, config: size is None or (size > 0 and config.data.train_batch_size % size == 0),
        "does not divide data.train_batch_size: leave it null",
    ),
    # The sampling.
    (f"{_ROLLOUT}.name", _is("vllm"), "cannot stop a turn at its end as workflow_r1_agent_loop asks: take vllm"),
    (f"{_ROLLOUT}.mode", _is("async"), "was removed from verl: leave it at async"),
    (f"{_ROLLOUT}.n", _positive, "rolls nothing out: take 2 or more, or there is nothing to compare a rollout with"),
    (
        f"{_ROLLOUT}.temperature",
        _positive,
        "makes all rollouts of a question the same, and the trainer divides by it: take 1.0",
    ),
    (f"{_ROLLOUT}.do_sample", _is(True), f"is not read with vLLM, which goes by {_ROLLOUT}.temperature: leave it True"),
    (
        f"{_ROLLOUT}.val_kwargs.do_sample",
        lambda sample, config: sample == (config.actor_rollout_ref.rollout.val_kwargs.temperature > 0),
        f"contradicts {_ROLLOUT}.val_kwargs.temperature, which alone is read: set both, a temperature of 0 for False",
    ),
    (f"{_ROLLOUT}.repetition_penalty", _is(None, 1, 1.0), "is not read by verl's agent loops: leave it out"),
    (f"{_ROLLOUT}.over_sample_rate", _is(0), "is not read by verl 0.9.1: leave it at 0"),
    (f"{_ROLLOUT}.ignore_eos", _is(False), "keeps a policy from ending its turn: leave it False"),
    (
        f"{_ROLLOUT}.prompt_length",
        lambda length, config: length >= config.data.max_prompt_length,
        "is less than data.max_prompt_length, and verl would cut off the beginning of longer prompts: leave it out",
    ),
    (
        f"{_ROLLOUT}.max_model_len",
        _holds_the_longest,
        f"does not hold the longest sequence, {_ROLLOUT}.prompt_length + {_ROLLOUT}.response_length, and turns would "
        "be cut off there: raise it, or leave it null",
    ),
    (
        f"{_ROLLOUT}.calculate_log_probs",
        lambda given, config: given or _corrects_nothing(config),
        "leaves algorithm.rollout_correction without the probabilities that it needs: set it to True",
    ),
    (
        f"{_ROLLOUT}.agent.default_agent_loop",
        _unless(_our_reward, _is(AGENT_LOOP)),
        f"records nothing that the reward manager workflow_r1 could score: leave it at {AGENT_LOOP}, or name another "
        "reward.reward_manager.name",
    ),
    (f"{_ROLLOUT}.agent.num_workers", _positive, "rolls nothing out: take 1 or more"),
    (f"{_ROLLOUT}.agent.custom_async_server.path", _is(None), "is not read by verl 0.9.1: leave it null"),
    (
        f"{_ROLLOUT}.trace.backend",
        _is(None),
        "is not read by verl's V1 trainer: leave it null, and find every trajectory in "
        "trainer.v1.sampler.sampler_kwargs.trajectory_dir",
    ),
    # The turns.
    (
        f"{_MULTI_TURN}.enable",
        _is(True),
        "is not read by verl's V1 trainer: leave it True; a single turn is workflow_r1.limits.max_turns=1",
    ),
    (
        f"{_MULTI_TURN}.max_user_turns",
        _unless(_ours, _is(None)),
        "is not read by workflow_r1_agent_loop: set workflow_r1.limits.max_turns",
    ),
    *(
        (
            f"{_MULTI_TURN}.{name}",
            _unless(_ours, _is(verls)),
            f"is not read by workflow_r1_agent_loop: leave it at verl's {json.dumps(verls)}, and set {ours}",
        )
        for name, verls, ours in (
            ("max_assistant_turns", None, "workflow_r1.limits.max_turns"),
            ("max_parallel_calls", 1, "workflow_r1.limits.max_parallel_calls"),
            ("max_tool_response_length", 256, "workflow_r1.limits.max_observation_length, in tokens"),
            ("tool_response_truncate_side", "middle", "workflow_r1.limits.truncate_side"),
        )
    ),
    (
        f"{_MULTI_TURN}.tool_config_path",
        _unless(_ours, _is(None)),
        "is not read by workflow_r1_agent_loop: declare operators in workflow_r1.pool.modules",
    ),
    (
        f"{_MULTI_TURN}.function_tool_path",
        _unless(_ours, _is(None)),
        "is not read by workflow_r1_agent_loop: declare operators in workflow_r1.pool.modules",
    ),
    (
        f"{_MULTI_TURN}.format",
        _unless(_ours, _is("hermes")),
        "is not read by workflow_r1_agent_loop, whose turns have one format: leave it at hermes",
    ),
    (
        f"{_MULTI_TURN}.use_inference_chat_template",
        _is(False),
        "is not read by verl 0.9.1, which never tokenises again what was sampled: leave it False",
    ),
    (f"{_MULTI_TURN}.num_repeat_rollouts", _is(None), f"is not read by verl 0.9.1: set {_ROLLOUT}.n"),
    # The reward.
    (
        "reward.custom_reward_function.path",
        _unless(_our_reward, _is(None)),
        "is not called by the reward manager workflow_r1: name your function as workflow_r1.reward.function "
        "(docs/reward.md), or take reward.reward_manager.name=naive",
    ),
    (
        "reward.reward_model.enable",
        _unless(_our_reward, _is(False)),
        "takes the place of the reward manager workflow_r1: leave it False, or name another reward.reward_manager.name",
    ),
    (
        "reward.reward_manager.source",
        lambda source, config: source != "importlib" or config.reward.reward_manager.module.path,
        "needs the file that defines the class reward.reward_manager.name: set reward.reward_manager.module.path",
    ),
    ("reward.num_workers", _positive, "scores nothing: take 1 or more"),
)

# Sections of verl before 0.7, which its V1 trainer has in its tree and does not read.
_LEGACY = ("custom_reward_function", "reward_model", "sandbox_fusion")


def check_rollouts(config: DictConfig) -> None:
    """The settings of the rollouts, the reward and the advantage do what they say.

    Raises:
        LaunchError: naming the first that does not.
    """
    for name, test, sentence in RULES:
        value = OmegaConf.select(config, name)
        if not test(value, config):
            raise LaunchError(f"{name}={value} {sentence}.")
    for section in _LEGACY:
        if setting := _first_set(config.get(section), section):
            raise LaunchError(
                f"{setting} is not read by verl's V1 trainer: the settings of the reward are under reward now."
            )
    try:
        cache = WorkflowConfig.parse(config).endings.cache_length
    except ConfigError as error:
        raise LaunchError(str(error)) from None
    if cache is not None and not _our_reward(config):
        raise LaunchError(
            "workflow_r1.endings: an ending is shaped by the reward manager workflow_r1 alone: leave "
            "reward.reward_manager.name at it, or take shaped and cache_length out."
        )
    if cache is not None and cache > (longest := config.actor_rollout_ref.rollout.response_length):
        raise LaunchError(
            f"workflow_r1.endings.cache_length={cache} is more than the {longest} tokens of data.max_response_length, "
            "of which it is the last part: lower it."
        )


def _first_set(node: Any, name: str) -> str | None:
    """The name of the first setting under `node` that is not null."""
    if not isinstance(node, DictConfig):
        return None if node is None else name
    return next((found for key in node if (found := _first_set(node[key], f"{name}.{key!s}"))), None)
