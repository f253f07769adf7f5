"""The policy model: it is there, and its tokenizer and chat template can carry a trajectory."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from workflow_r1.policy.chat_format import ChatFormatError, usable_template
from workflow_r1.runs.recipe import LaunchError


def check_model(path: str | None, setting: str = "actor_rollout_ref.model.path") -> None:
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
        AutoConfig.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:  # the last: httpx, about a SOCKS proxy
        reason = str(error).strip().splitlines()[0]
        raise LaunchError(f"The model {path!r} could not be loaded from the Hugging Face Hub: {reason}") from None


def policy_tokenizer(config: DictConfig) -> Any:
    """The policy's tokenizer with the chat template that the run gives it.

    Raises:
        LaunchError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    model = config.actor_rollout_ref.model
    path = model.tokenizer_path or model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(Path(path).expanduser()) if Path(path).expanduser().exists() else path,
            trust_remote_code=model.trust_remote_code,
        )
    except Exception as error:  # a tokenizer's own code and files fail in every way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise LaunchError(
            f"The tokenizer of {path!r} cannot be loaded ({reason}): set actor_rollout_ref.model.tokenizer_path to a "
            "folder that has one."
        ) from None
    if model.custom_chat_template:
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer


def check_chat_template(config: DictConfig) -> str | None:
    """The model's tokenizer and chat template can carry a trajectory of two turns, rendered here without the model.

    Returns:
        the chat template that the model needs in place of its own; None if its own will do.
    """
    tokenizer = policy_tokenizer(config)
    arguments = OmegaConf.to_container(OmegaConf.create(config.data.apply_chat_template_kwargs or {}))
    assert isinstance(arguments, dict)
    try:
        return usable_template(tokenizer, {str(name): value for name, value in arguments.items()})
    except ChatFormatError as error:
        raise LaunchError(f"The model {config.actor_rollout_ref.model.path!r} cannot be a policy: {error}.") from None
