"""The policy model: it is there, and its tokenizer and chat template can carry a trajectory."""

import inspect
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.errors import reason_of
from workflow_r1.policy.chat_format import ChatFormatError, usable_template
from workflow_r1.policy.tokenizer import TokenizerError, load_tokenizer, lost_text_note
from workflow_r1.runs.recipe import LaunchError

_TO_TRUST = "actor_rollout_ref.model.trust_remote_code=True"
# Beside transformers' own arguments: names that its renderer and verl's functions give to what they hand on.
_TAKEN = {"messages", "conversations", "tokenizer", "processor"}


def check_model(
    path: str | None, setting: str = "actor_rollout_ref.model.path", trust_remote_code: bool = False
) -> None:
    """`path`, the value of `setting`, is a checkpoint folder, or a Hub model whose configuration can be loaded."""
    if path is None:
        raise LaunchError(f"No model is named: set {setting} to a folder or a Hugging Face model id.")
    if (Path(path).expanduser() / "config.json").is_file():
        return
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).exists()
    if looks_local:
        raise LaunchError(
            f"There is no model at {path!r}: set {setting} to a folder with a config.json, or to a Hugging Face model "
            "id."
        )
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:  # the last: httpx, about a SOCKS proxy
        raise LaunchError(
            f"The model {path!r} could not be loaded from the Hugging Face Hub: {why_not_loaded(error)}."
        ) from None


def why_not_loaded(error: Exception) -> str:
    """What transformers says of a model's configuration that it does not load."""
    if "trust_remote_code" in str(error):
        return f"it needs code that comes with the model; read it, and if you trust it set {_TO_TRUST}"
    return reason_of(error)


def policy_tokenizer(config: DictConfig) -> Any:
    """The policy's tokenizer with the chat template that the run gives it.

    Raises:
        LaunchError: it cannot be loaded.
    """
    model = config.actor_rollout_ref.model
    path = model.tokenizer_path or model.path
    folder = Path(path).expanduser()
    try:
        tokenizer = load_tokenizer(str(folder) if folder.exists() else path, model.trust_remote_code, _TO_TRUST)
    except TokenizerError as error:
        raise LaunchError(
            f"The model {path!r} cannot be a policy: {error}, or set actor_rollout_ref.model.tokenizer_path to a "
            "folder with another tokenizer."
        ) from None
    if model.custom_chat_template:
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer


def check_template_arguments(config: DictConfig) -> None:
    """What the chat template is told are variables of its own, and nothing that says how it is rendered."""
    from transformers import PreTrainedTokenizerBase

    given = config.data.apply_chat_template_kwargs
    if not OmegaConf.is_dict(given) or not all(isinstance(name, str) for name in given):
        raise LaunchError(
            f"data.apply_chat_template_kwargs is {given}: write the chat template's variables as "
            "+data.apply_chat_template_kwargs.NAME=VALUE."
        )
    taken = {*inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters, *_TAKEN}
    for name in (taken - {"documents", "kwargs"}) & given.keys():
        instead = ", and set actor_rollout_ref.model.custom_chat_template" if name == "chat_template" else ""
        raise LaunchError(
            f"data.apply_chat_template_kwargs.{name} says how the chat template is rendered, which training decides "
            f"itself: leave it out{instead}; what stands there are variables of the template, such as enable_thinking."
        )


def check_chat_template(config: DictConfig) -> tuple[str | None, str | None]:
    """The model's tokenizer and chat template can carry a trajectory of two turns, rendered here without the model.

    Returns:
        the chat template that the model needs in place of its own, and a sentence on the text that its tokenizer
        loses; None if its own will do, and if it loses none.
    """
    tokenizer = policy_tokenizer(config)
    arguments: Any = OmegaConf.to_container(config.data.apply_chat_template_kwargs)
    try:
        return usable_template(tokenizer, arguments), lost_text_note(tokenizer)
    except ChatFormatError as error:
        raise LaunchError(f"The model {config.actor_rollout_ref.model.path!r} cannot be a policy: {error}.") from None
