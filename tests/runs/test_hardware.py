"""What a machine can train on, with stand-ins for the commands of the drivers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_r1.runs import hardware
from workflow_r1.runs.hardware import Hardware, HardwareError, find_hardware

SCRIPT = Path(hardware.__file__)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a command, written in sh, on a PATH that has no other."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, text: str = "") -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    return put


def test_a_machine_with_nothing_trains_on_its_cpu(command):
    assert find_hardware({}) == Hardware(gpu=False)


def test_an_nvidia_gpu_is_found(command):
    command("nvidia-smi", "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-6a)'")
    assert find_hardware({}) == Hardware(gpu=True)


TWO = "echo 'GPU 0: A (UUID: GPU-6a-1)'; echo '  MIG 1g.5gb Device 0: (UUID: MIG-ab-c)'; echo 'GPU 1: A (UUID: GPU-6b)'"


@pytest.mark.parametrize("chosen", ["0", "1", " 1 ", "1,0", "0,7", "1,-1", "GPU-6a", "GPU-6b,GPU-6a", "MIG-ab", "0x1"])
def test_a_choice_that_begins_with_a_gpu_that_is_there_is_taken(command, chosen):
    command("nvidia-smi", TWO)
    assert find_hardware({"CUDA_VISIBLE_DEVICES": chosen}) == Hardware(gpu=True)


@pytest.mark.parametrize("chosen", ["2", "7,0", "99999", "GPU-7", "GPU-", "GPU-6", "MIG-zz", "1,1", "0, 0"])
def test_a_choice_of_gpus_that_leaves_none_is_refused(command, chosen):
    command("nvidia-smi", TWO)
    with pytest.raises(
        HardwareError, match=r"^CUDA_VISIBLE_DEVICES='.*' (begins with no|names a) GPU .*\(0, 1\), or set"
    ):
        find_hardware({"CUDA_VISIBLE_DEVICES": chosen})
    run = [sys.executable, "-IS", SCRIPT]
    environ = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": chosen}
    said = subprocess.run(run, env=environ, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith(f"error: CUDA_VISIBLE_DEVICES={chosen!r}")
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize("hidden", ["", " ", "-1", "NoDevFiles", "none", "all", "cuda:0", "-1,0"])
def test_gpus_that_are_hidden_on_purpose_are_none_which_is_said(command, hidden):
    assert find_hardware({"CUDA_VISIBLE_DEVICES": hidden}) == Hardware(gpu=False)
    command("nvidia-smi", TWO)
    note = f"CUDA_VISIBLE_DEVICES={hidden.strip()!r} hides the NVIDIA GPUs: unset it to train on them."
    assert find_hardware({"CUDA_VISIBLE_DEVICES": hidden}) == Hardware(gpu=False, note=note)


def test_a_driver_without_a_gpu_is_no_trouble(command):
    command("nvidia-smi", "echo No devices were found; exit 6")
    assert find_hardware({}) == Hardware(gpu=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "Failed to initialize NVML"),
        ("echo 'Failed to initialize NVML: GPU access blocked by the operating system'; exit 17", "GPU access blocked"),
        ('echo "couldn\'t communicate with the NVIDIA driver" >&2; exit 9', "couldn't communicate"),
        ("exit 127", "no output"),
        ("sleep 60", "no answer within 0 s"),
        ("/bin/sleep 60 & /bin/sleep 60", "no answer within 0 s"),
    ],
)
def test_a_broken_driver_is_named_with_what_it_says(command, monkeypatch, text, reason):
    monkeypatch.setattr(hardware, "_ANSWER_SECONDS", 0.3 if "sleep" in text else 10.0)
    command("sleep", "exec /bin/sleep 60")
    command("nvidia-smi", text)
    found = find_hardware({})
    assert not found.gpu
    assert found.note.startswith("nvidia-smi lists no GPU (")
    assert reason in found.note


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        *[("rocm-smi", "AMD GPUs"), ("rocminfo", "AMD GPUs"), ("npu-smi", "Ascend NPUs"), ("xpu-smi", "Intel GPUs")],
        *[("sycl-ls", "Intel GPUs"), ("cnmon", "Cambricon MLUs"), ("neuron-ls", "AWS Neuron devices")],
        *[("tpu-info", "Google TPUs"), ("mthreads-gmi", "Moore Threads GPUs"), ("mx-smi", "MetaX GPUs")],
        *[("hy-smi", "Hygon DCUs"), ("hl-smi", "Gaudi accelerators"), ("ixsmi", "Iluvatar GPUs")],
    ],
)
def test_other_accelerators_are_named_as_not_used(command, mark, name):
    command(mark)
    assert find_hardware({}).note.startswith(f"{name} are not used: Workflow-R1 trains on NVIDIA GPUs or")


def test_another_accelerator_beside_a_broken_driver_is_named_in_the_same_sentence(command):
    command("nvidia-smi", r"printf 'Failed\033[31m to initialize\r\nmore\n'; exit 9")
    command("amd-smi")
    assert find_hardware({}).note == (
        "nvidia-smi lists no GPU (Failed[31m to initialize): mend its driver to train on one; AMD GPUs are not used; "
        "the CPU is used."
    )


def test_it_runs_by_itself_with_nothing_but_python(command):
    command("npu-smi")
    run = [sys.executable, "-IS", SCRIPT]
    said = subprocess.run(run, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("cpu Ascend NPUs are not used")
