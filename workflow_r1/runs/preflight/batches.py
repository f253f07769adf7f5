"""The batches: how many steps the data is good for, and how a step's rows divide."""

from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.recipe import LaunchError, steps_of_epochs

_ACTOR, _ROLLOUT, _REF = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref"


def check_batches(config: DictConfig) -> None:
    """The data holds the steps that are asked for, and every division leaves nothing over. Numbers have been checked.

    Raises:
        LaunchError: with one sentence.
    """
    _check_steps(config)
    _check_batches(config)
    _check_micro_batches(config)


def _check_steps(config: DictConfig) -> None:
    steps, within = config.trainer.total_training_steps, steps_of_epochs(config)
    if within == 0:
        raise LaunchError(
            f"data.train_files hold fewer questions than one step takes (data.train_batch_size="
            f"{config.data.train_batch_size}), or trainer.total_epochs is 0: lower the one or raise the other."
        )
    if steps and within and steps > within:
        raise LaunchError(
            f"trainer.total_epochs={config.trainer.total_epochs} ends after {within} steps, without a last validation "
            f"and checkpoint, where trainer.total_training_steps asks for {steps}: raise trainer.total_epochs."
        )


def _check_batches(config: DictConfig) -> None:
    actor, data = config.actor_rollout_ref.actor, config.data
    if data.train_batch_size % actor.ppo_mini_batch_size:
        raise LaunchError(
            f"data.train_batch_size={data.train_batch_size} is no multiple of {_ACTOR}.ppo_mini_batch_size="
            f"{actor.ppo_mini_batch_size}, and verl would fill up with empty rows, which weaken the gradient: "
            "change one of them."
        )
    replicas = _replicas(config)
    rows = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    if rows % replicas:
        raise LaunchError(
            f"The {rows} trajectories of an update ({_ACTOR}.ppo_mini_batch_size × actor_rollout_ref.rollout.n) "
            f"do not spread evenly over {replicas} GPUs: change one of them, or trainer.n_gpus_per_node."
        )
    longest = data.max_prompt_length + data.max_response_length
    room = actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size
    if actor.use_dynamic_bsz and room < longest:
        raise LaunchError(
            f"{_ACTOR}.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} does not hold the longest sequence, "
            f"data.max_prompt_length + data.max_response_length = {longest}: raise it."
        )


def _check_micro_batches(config: DictConfig) -> None:
    actor, rollout, ref = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "ref"))
    if rollout.log_prob_use_dynamic_bsz != actor.use_dynamic_bsz:
        raise LaunchError(
            f"{_ROLLOUT}.log_prob_use_dynamic_bsz={rollout.log_prob_use_dynamic_bsz} contradicts {_ACTOR}."
            f"use_dynamic_bsz={actor.use_dynamic_bsz}, and verl takes one for both: leave it out."
        )
    update, batch = actor.ppo_mini_batch_size * rollout.n, config.data.train_batch_size * rollout.n
    divided = {}  # setting -> the rows that it divides
    if not actor.use_dynamic_bsz:
        divided[f"{_ACTOR}.ppo_micro_batch_size_per_gpu"] = update
        divided[f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu"] = batch
    if _has_reference(config) and not (actor.use_dynamic_bsz and ref.log_prob_use_dynamic_bsz):
        divided[f"{_REF}.log_prob_micro_batch_size_per_gpu"] = batch
    for name, rows in divided.items():
        size, on_each = OmegaConf.select(config, name), rows // _replicas(config)
        if not isinstance(size, int) or size < 1 or on_each % size:
            raise LaunchError(
                f"{name}={size} does not divide the {on_each} trajectories of each GPU, as it has to where "
                f"use_dynamic_bsz is False: set it to a divisor, or leave {_ACTOR}.use_dynamic_bsz True."
            )


def _has_reference(config: DictConfig) -> bool:
    """Whether a reference policy of its own is made: with LoRA it is the actor without its adapter."""
    model = config.actor_rollout_ref.model
    needed = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    return needed and model.lora_rank <= 0 and model.lora_adapter_path is None


def _replicas(config: DictConfig) -> int:
    sequence_parallel = config.actor_rollout_ref.actor.ulysses_sequence_parallel_size
    return config.trainer.nnodes * config.trainer.n_gpus_per_node // sequence_parallel
