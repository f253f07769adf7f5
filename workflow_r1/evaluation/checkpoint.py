"""From what a user names as a policy to a folder that vLLM can serve; `verl_plugin.merge` merges verl's shards."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from workflow_r1.errors import reason_of
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.runs.checkpoints import CONFIG_FILE, last_step
from workflow_r1.system.files import made_whole
from workflow_r1.system.supervision import under_supervisor

_SHARDED = "fsdp_config.json"
_ADAPTED = "lora_train_meta.json"  # then verl's own export has a PEFT model's names, which no server reads


def find_checkpoint(path: Path) -> Path:
    """The Hugging Face folder, or the folder of verl's shards, that `path` means.

    Args:
        path: either of them, a `global_step_N`, or a run's folder, which means its last step.

    Raises:
        EvaluationError: there is no checkpoint.
    """
    if not path.is_dir():
        raise EvaluationError(f"There is no folder {path}: name a checkpoint, an endpoint's URL, or a model id.")
    if step := last_step(path):
        path = path / f"global_step_{step}"
    for folder in (path, path / "actor"):
        if (folder / _SHARDED).is_file():
            exported = folder / "huggingface"
            return exported if _has_weights(exported) and not (folder / _ADAPTED).is_file() else folder
        if _has_weights(folder):
            return folder
    raise EvaluationError(
        f"{path} holds no checkpoint: it needs config.json with weights (Hugging Face), or {_SHARDED} (verl's "
        "global_step_N/actor)."
    )


_TRAINED_WITH = {
    "prompt": "workflow_r1.prompt",
    "limits": "workflow_r1.limits",
    "pool": "workflow_r1.pool",
    "max_response_tokens": "data.max_response_length",
    "template_arguments": "data.apply_chat_template_kwargs",
}
"""Settings of a policy, and where the configuration of a run has them."""


def trained_rollout(policy: Path) -> dict[str, Any]:
    """How a checkpoint was rolled out in training, as far as it was set; nothing for a checkpoint of another program.

    Args:
        policy: as for `find_checkpoint`.

    Raises:
        EvaluationError: there is no checkpoint, or its configuration cannot be read.
    """
    found = find_checkpoint(policy).resolve()
    step = next((folder for folder in (found, *found.parents) if re.fullmatch(r"global_step_\d+", folder.name)), None)
    if step is None or not (made_by := step / CONFIG_FILE).is_file():
        return {}
    try:
        config = OmegaConf.load(made_by)
        found_there = {name: OmegaConf.select(config, setting) for name, setting in _TRAINED_WITH.items()}
        is_ours = OmegaConf.select(config, "workflow_r1") is not None
        return {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in found_there.items()
            if is_ours and value is not None
        }
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise EvaluationError(
            f"{made_by}, which says how the checkpoint was trained, cannot be read ({reason_of(error)}): put it back "
            "as it was, or take it away and set --prompt, the operators and the bounds yourself."
        ) from None


def _has_weights(folder: Path) -> bool:
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return bool(weights) and (folder / "config.json").is_file()


async def merged_checkpoint(checkpoint: str, environ: Mapping[str, str]) -> str:
    """What vLLM can serve: `checkpoint` itself, unless it is a folder of verl's shards.

    Those are merged into `merged` beside their folder, once; newer shards are merged again.

    Args:
        checkpoint: a folder as `find_checkpoint` returns it, or a model id.
        environ: the environment in which verl can be imported on this machine.

    Raises:
        EvaluationError: they could not be merged.
    """
    shards = Path(checkpoint)
    merged = shards.parent / "merged"
    if not (shards / _SHARDED).is_file():
        return checkpoint
    if not _is_newer(merged / "config.json", shards):
        with made_whole(merged) as unfinished:
            await _merge(shards, unfinished, environ)
    return str(merged)


def _is_newer(file: Path, folder: Path) -> bool:
    return file.is_file() and file.stat().st_mtime >= max(other.stat().st_mtime for other in folder.iterdir())


async def _merge(shards: Path, target: Path, environ: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "workflow_r1.verl_plugin.merge", str(shards), str(target)]
    merger = await asyncio.create_subprocess_exec(
        *under_supervisor(command), env=dict(environ), stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    assert merger.stdin is not None
    assert merger.stdout is not None
    try:
        output = await merger.stdout.read()
    finally:
        merger.stdin.close()
        await merger.wait()
    if merger.returncode:
        reason = (output.decode(errors="replace").strip() or "no output").splitlines()[-1]
        raise EvaluationError(f"{shards} could not be merged ({reason}): check its files and the free disk space.")
