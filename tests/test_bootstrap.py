"""The installation, by real pip into real virtual environments."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.bare_machine import CPU, ROOT, Machine, cpu_torch, cuda_torch, wheel


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


@pytest.fixture
def gpu(machine) -> Machine:
    machine.command("nvidia-smi", "echo 'GPU 0: a large one (UUID: GPU-1)'")
    wheel(machine.own, "torch", "2.11.0", torch____init____="", torch__version="cuda = '13.0'")
    return machine


def flash_attention(folder: Path) -> Path:
    wheel(folder, "flash_attn", "2.8.3.post2")
    return (folder / "flash_attn").rename(folder / "flash-attn")


@pytest.mark.slow
def test_with_a_gpu_an_environment_of_its_own_does_without_flash_attn_where_it_cannot_be_built(gpu):
    done = gpu.run()
    assert "note: no nvcc found to build flash-attn with, and torch's own attention is used" in done.stderr
    assert done.stdout.splitlines()[-1] == str(gpu.checkout / ".venv-gpu" / "bin" / "python")
    assert gpu.installed("torch", ".venv-gpu") == ["2.11.0"]
    shutil.rmtree(gpu.checkout / ".venv-gpu")
    gpu.command("nvcc", "")
    assert "note: flash-attn could not be built" in gpu.run().stderr


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [False, True])
def test_flash_attn_is_built_with_nvcc_or_taken_from_a_wheel_that_is_named(gpu, is_named):
    folder = flash_attention(gpu.own)
    if is_named:
        gpu.chosen(FLASH_ATTN_WHEEL=str(next(folder.glob("*.whl"))))
    else:
        gpu.command("nvcc", "")
        gpu.chosen()
    assert gpu.installed("flash_attn", ".venv-gpu") == ["2.8.3.post2"]


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
