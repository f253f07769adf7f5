"""From what a user names as a policy to a folder that vLLM can serve: verl's shards are merged by verl's own merger."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from workflow_r1.evaluation.errors import EvaluationError

_LATEST = "latest_checkpointed_iteration.txt"  # verl's trainer keeps the last step's number there
_SHARDED = "fsdp_config.json"


def find_checkpoint(path: Path) -> Path:
    """The Hugging Face folder, or the folder of verl's shards, that `path` means.

    Args:
        path: either of them, a `global_step_N`, or a run's folder, which means its last step.

    Raises:
        EvaluationError: there is no checkpoint.
    """
    if not path.is_dir():
        raise EvaluationError(f"There is no folder {path}: name a checkpoint, an endpoint's URL, or a model id.")
    if (path / _LATEST).is_file():
        path = path / f"global_step_{(path / _LATEST).read_text().strip()}"
    for folder in (path, path / "actor"):
        if (folder / _SHARDED).is_file():
            exported = folder / "huggingface"
            return exported if _has_weights(exported) else folder
        if _has_weights(folder):
            return folder
    raise EvaluationError(
        f"{path} holds no checkpoint: it needs config.json with weights (Hugging Face), or {_SHARDED} (verl's "
        "global_step_N/actor)."
    )


def _has_weights(folder: Path) -> bool:
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return bool(weights) and (folder / "config.json").is_file()


def merged_checkpoint(path: Path, environ: Mapping[str, str]) -> Path:
    """A Hugging Face folder with the weights of `path`, as `find_checkpoint` returns it.

    verl's shards are merged into `merged` beside their folder, once; newer shards are merged again.

    Args:
        environ: the environment in which verl can be imported on this machine.

    Raises:
        EvaluationError: verl's merger failed.
    """
    if not (path / _SHARDED).is_file():
        return path
    merged, unfinished = path.parent / "merged", path.parent / "merged.unfinished"
    newest = max(shard.stat().st_mtime for shard in path.iterdir())
    if (merged / "config.json").is_file() and (merged / "config.json").stat().st_mtime >= newest:
        return merged
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(path), "--target_dir", str(unfinished)]
    merger = subprocess.run(command, env=dict(environ), capture_output=True, text=True)
    if merger.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = (merger.stderr.strip() or merger.stdout.strip() or "no output").splitlines()[-1]
        raise EvaluationError(f"verl could not merge {path} ({reason}): check its files and the free disk space.")
    shutil.rmtree(merged, ignore_errors=True)
    unfinished.rename(merged)
    return merged
