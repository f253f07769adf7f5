"""A machine with nothing installed: real pip and virtual environments, with tiny wheels of indexes in folders."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
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
        (self.checkout / GPU).write_text("small==1.0\ntorch==2.11.0\n")
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
