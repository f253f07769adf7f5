"""A machine that a run cannot start on is told so in one sentence, with what to do."""

import sys

import pytest
import torch

from workflow_r1.runs import preflight
from workflow_r1.runs.hardware import Hardware, HardwareError
from workflow_r1.runs.preflight import machine
from workflow_r1.runs.recipe import LaunchError


def found(monkeypatch: pytest.MonkeyPatch, hardware: Hardware, cuda: str | None) -> None:
    monkeypatch.setattr(machine, "find_hardware", lambda environ: hardware)
    monkeypatch.setattr(torch.version, "cuda", cuda)


def refusal(check, *arguments: object) -> str:
    with pytest.raises(LaunchError) as error:
        check(*arguments)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(("system", "where"), [("darwin", "container or virtual machine"), ("win32", "in WSL 2")])
def test_another_system_than_linux(monkeypatch, system, where):
    monkeypatch.setattr(sys, "platform", system)
    assert where in refusal(preflight.check_system)


def test_a_python_that_verl_does_not_run_on(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert "3.10 to 3.12" in refusal(preflight.check_system)


def test_a_driver_too_old_for_torch_is_named_with_torchs_reason(monkeypatch):
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update your GPU")

    found(monkeypatch, Hardware(gpu=True), cuda="13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    message = refusal(preflight.usable_hardware)
    assert "(The NVIDIA driver on your system is too old (found version 12020)): update the driver" in message
    assert "one for CUDA 13.0, or set CUDA_VISIBLE_DEVICES=''" in message
    assert refusal(preflight.check_machine, "cuda") == message


def test_a_gpu_beside_a_torch_for_the_cpu_is_left_alone_and_said(monkeypatch):
    found(monkeypatch, Hardware(gpu=True), cuda=None)
    hardware = preflight.usable_hardware()
    assert not hardware.gpu
    assert "torch here is a build for the CPU, which is used: 'bash train.sh' installs the other" in hardware.note


def test_a_choice_of_gpus_that_leaves_none(monkeypatch):
    def none(environ: object) -> Hardware:
        raise HardwareError("CUDA_VISIBLE_DEVICES='7' begins with no GPU of this machine.")

    monkeypatch.setattr(machine, "find_hardware", none)
    assert refusal(preflight.check_machine, "cuda").startswith("CUDA_VISIBLE_DEVICES='7' begins with no GPU")


def test_a_recipe_for_gpus_on_a_machine_without(monkeypatch):
    found(monkeypatch, Hardware(gpu=False), cuda=None)
    assert "leave --recipe out" in refusal(preflight.check_machine, "cuda")
    found(monkeypatch, Hardware(gpu=False, note="CUDA_VISIBLE_DEVICES='' hides the NVIDIA GPUs."), cuda=None)
    assert "torch sees none (CUDA_VISIBLE_DEVICES='' hides the NVIDIA GPUs): leave" in refusal(
        preflight.check_machine, "cuda"
    )
    assert "trains on 'cuda' or 'cpu'" in refusal(preflight.check_machine, "npu")


def test_a_recipe_for_the_cpu_where_vllm_is_a_build_for_gpus(monkeypatch):
    monkeypatch.setattr(machine, "vllm_is_for_cpu", lambda: False)
    assert "CUDA_VISIBLE_DEVICES='' and 'bash train.sh'" in refusal(preflight.check_machine, "cpu")


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(machine, "vllm_is_for_cpu", lambda: True)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install g++" in refusal(preflight.check_machine, "cpu")


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_ray_or_torchs_compiler_cannot_use(name):
    for folder in ("/scratch/users/somebody/slurm.12345678.0", "/tmp/a b", "/tmp/数", "/tmp/a'b", "/tmp/a\\b"):
        message = refusal(preflight.check_temporary_folders, {name: folder})
        assert message.startswith(
            f"{name} is {folder!r}, where Ray and torch's compiler cannot work: set it to a folder"
        )
    preflight.check_temporary_folders({"RAY_TMPDIR": "/tmp", "TMPDIR": "/" + "x" * 60})
    preflight.check_temporary_folders({name: "/" + "x" * 38})
