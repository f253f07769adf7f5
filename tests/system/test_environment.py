"""Commands run without a home or a user's name, and name a variable of the environment that cannot work."""

import getpass
import os
import pwd
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.system.environment import EnvironmentFault, prepare_environment

NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "TMPDIR")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """No such variable is set, temporary files go below tmp_path, and what is set is taken back."""
    for name in (*NAMES, *CERTIFICATES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def unknown_user(monkeypatch):
    def getpwuid(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/proc", "/dev/null"])
def test_without_a_home_or_a_line_in_passwd_both_are_stood_in_for(unknown_user, monkeypatch, tmp_path, home):
    if home is not None:
        monkeypatch.setenv("HOME", home)
    note = prepare_environment()
    stand_in = tmp_path / f"home-of-{os.getuid()}"
    assert note == f"no home folder can be written, so caches are kept in {stand_in}: set HOME to keep them longer."
    assert Path.home() == stand_in
    assert stand_in.stat().st_mode & 0o777 == 0o700
    assert cache_dir() == stand_in / ".cache" / "workflow-r1"
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert prepare_environment() is None  # as a child process finds it


def test_a_home_that_is_unset_is_that_of_passwd(monkeypatch, tmp_path):
    entry = pwd.struct_passwd(("somebody", "x", os.getuid(), 0, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    assert prepare_environment() is None
    assert (os.environ["HOME"], getpass.getuser()) == (str(tmp_path), "somebody")


def test_a_stand_in_that_is_another_users_is_not_used(unknown_user, tmp_path):
    (tmp_path / f"home-of-{os.getuid()}").symlink_to("/proc/1")
    os.lchown(tmp_path / f"home-of-{os.getuid()}", 12345, 12345)
    with pytest.raises(EnvironmentFault, match="is another user's: set HOME"):
        prepare_environment()


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_that_are_not_there_are_named_before_anything_runs(monkeypatch, name):
    monkeypatch.setenv(name, "/gone/ca.pem")
    done = CliRunner().invoke(app, ["operators", "list"])
    assert done.exit_code == 1
    assert f"error: {name} is /gone/ca.pem" in done.output
    assert "correct it or unset it" in done.output


@pytest.mark.parametrize(
    "content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_a_file_without_certificates_is_named(monkeypatch, tmp_path, content):
    file = tmp_path / "ca.pem"
    file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(EnvironmentFault, match=r"SSL_CERT_FILE is .* holds no certificates that can be read"):
        prepare_environment()


@pytest.mark.parametrize("name", ["TMPDIR", "XDG_CACHE_HOME"])
def test_a_folder_that_cannot_be_written_is_named(monkeypatch, name):
    monkeypatch.setenv(name, "/proc/none")
    with pytest.raises(EnvironmentFault, match=f"{name} is /proc/none, where nothing can be written"):
        prepare_environment()


def test_a_relative_cache_is_the_same_folder_for_every_process(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    prepare_environment()
    assert cache_dir() == tmp_path / "cache" / "workflow-r1"


def test_a_cache_that_pythonpath_cannot_hold_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a:b"))
    with pytest.raises(EnvironmentFault, match="a path with a colon: set XDG_CACHE_HOME to another folder"):
        prepare_environment()


def test_windows_is_named_before_what_it_cannot_import():
    code = "import sys; sys.modules.update(fcntl=None, pwd=None); import typer; sys.platform = 'win32'; "
    done = subprocess.run([sys.executable, "-c", code + "import workflow_r1.cli.app"], capture_output=True, text=True)
    assert (
        done.stderr
        == "error: Workflow-R1 runs on Linux: on Windows install WSL 2 ('wsl --install') and use it there.\n"
    )


def test_a_terminal_without_a_character_shows_its_number(monkeypatch):
    terminal = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    app(["operators", "list"], standalone_mode=False)
    print("Köln", flush=True)
    assert terminal.buffer.getvalue().endswith(b"K\\xf6ln\n")


def test_child_processes_find_this_python_by_a_path_that_needs_no_quotes(monkeypatch, tmp_path):
    """As they do not get any: in Ray's command for a worker, in torch's for its compiler."""
    environment = tmp_path / "数据 (1), a='b"
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho $1")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(sys, "executable", str(python))
    prepare_environment()
    assert subprocess.check_output(f"{sys.executable} works", shell=True, text=True) == "works\n"
    assert Path(sys.executable).parents[1].resolve() == environment
    plain = sys.executable
    prepare_environment()
    assert sys.executable == plain
