"""The policy model: it is there."""

from pathlib import Path

from workflow_r1.launch.recipe import LaunchError


def check_model(path: str | None) -> None:
    """`path` is a checkpoint folder, or a Hub model whose configuration can be loaded."""
    if path is None:
        raise LaunchError("No model is named: set actor_rollout_ref.model.path to a folder or a Hugging Face model id.")
    if (Path(path).expanduser() / "config.json").is_file():
        return
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).exists()
    if looks_local:
        raise LaunchError(
            f"There is no model at {path!r}: set actor_rollout_ref.model.path to a folder with a config.json, "
            "or to a Hugging Face model id."
        )
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LaunchError(f"The model {path!r} could not be loaded from the Hugging Face Hub: {reason}") from None
