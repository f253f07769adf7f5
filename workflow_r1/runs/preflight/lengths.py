"""The lengths: every prompt fits, or what does not is counted before the run; the context holds a rollout."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.config import WorkflowConfig
from workflow_r1.data.lengths import count_tokens
from workflow_r1.data.training import iterate_rows, load_training_file
from workflow_r1.data.verl_rows import AGENT_LOOP
from workflow_r1.errors import reason_of
from workflow_r1.policy.chat_format import read_chat_format
from workflow_r1.runs.preflight.model import policy_tokenizer, why_not_loaded
from workflow_r1.runs.recipe import LaunchError

Messages = Sequence[Mapping[str, str]]
Render = Callable[[str, Messages], str]  # of the name of a row's agent and the row's messages


def check_lengths(config: DictConfig) -> list[str]:
    """Measure the prompts, the run's system message included. Model and data have been checked.

    Returns:
        A sentence for each of `data.train_files` and `data.val_files` of which verl leaves some prompts out, as it can
        with another agent loop than ours.

    Raises:
        LaunchError: too few are left, too long ones would be cut, or a rollout does not fit in the model's context.
    """
    _check_context(config)
    if (config.data.get("custom_cls") or {}).get("path"):
        return []
    tokenizer = policy_tokenizer(config)
    render = _renderer(config, tokenizer)
    fewest = {"train_files": config.data.train_batch_size, "val_files": 1}
    notes = (_check_prompts(config, setting, tokenizer, render, needed) for setting, needed in fewest.items())
    return [note for note in notes if note]


def _check_context(config: DictConfig) -> None:
    from transformers import AutoConfig

    rollout, model = config.actor_rollout_ref.rollout, config.actor_rollout_ref.model.path
    path = Path(model).expanduser()
    trusted = config.actor_rollout_ref.model.trust_remote_code
    try:
        settings = AutoConfig.from_pretrained(str(path) if path.exists() else model, trust_remote_code=trusted)
    except (OSError, ValueError) as error:
        raise LaunchError(
            f"The configuration of the model {model!r} cannot be read: {why_not_loaded(error)}."
        ) from None
    context = getattr(settings.get_text_config(), "max_position_embeddings", None)
    if context and context < (longest := rollout.prompt_length + rollout.response_length):
        raise LaunchError(
            f"A rollout takes up to data.max_prompt_length + data.max_response_length = {longest:,} tokens, and the "
            f"context of {model} is {context:,}: lower them."
        )


def _check_prompts(config: DictConfig, setting: str, tokenizer: Any, render: Render, needed: int) -> str | None:
    data = config.data
    files = [data[setting]] if isinstance(data[setting], str) else list(data[setting])
    here = [file for file in files if not file.startswith("hdfs://")]
    texts = (text for file in here for text in _rendered(file, config, render))
    lengths = count_tokens(texts, tokenizer)
    most = data.max_prompt_length
    left = sum(length <= most for length in lengths)
    if not lengths or left == len(lengths):
        return None
    too_long = (
        f"{len(lengths) - left:,} of the {len(lengths):,} prompts of data.{setting} are longer than "
        f"data.max_prompt_length={most} tokens (the shortest prompt has {min(lengths):,}, the longest {max(lengths):,})"
    )
    if not data.filter_overlong_prompts:
        raise LaunchError(
            f"{too_long}, and none is cut or left out: raise data.max_prompt_length, take a shorter workflow_r1.prompt "
            "or take them out of the data."
        )
    if left < needed:
        raise LaunchError(
            f"{too_long}, and the {left:,} that are left are no batch of {needed:,}: raise data.max_prompt_length."
        )
    return f"{too_long}: they are left out."


def _rendered(file: str, config: DictConfig, render: Render) -> Iterator[str]:
    key, default_agent = config.data.prompt_key, config.actor_rollout_ref.rollout.agent.default_agent_loop
    for number, row in enumerate(iterate_rows(load_training_file(file), [key, "agent_name"])):
        try:
            yield render(row.get("agent_name") or default_agent, row[key])
        except Exception as error:  # a template raises whatever it likes
            raise LaunchError(
                f"The policy's chat template cannot render the prompt of row {number:,} of {file}: {reason_of(error)}."
            ) from None


def _renderer(config: DictConfig, tokenizer: Any) -> Render:
    """What an agent's rollout makes of a row's messages: ours as its session does, the system message included."""
    given = config.data.get("apply_chat_template_kwargs")
    arguments: Any = OmegaConf.to_container(given) if given else {}
    prompt, chat = WorkflowConfig.parse(config).policy_prompt(), cache(lambda: read_chat_format(tokenizer, arguments))

    def render(agent: str, messages: Messages) -> str:
        if agent == AGENT_LOOP:
            return chat().prompt_text(prompt.messages(messages))
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **arguments)

    return render
