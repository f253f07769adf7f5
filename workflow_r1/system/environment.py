"""What every command needs of its environment: certificates that exist, folders to write in, a home, a user's name."""

import atexit
import os
import pwd
import shlex
import ssl
import sys
import tempfile
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from workflow_r1.errors import UserError
from workflow_r1.system.cache_dir import cache_dir


class EnvironmentFault(UserError):
    """A variable of the environment that cannot work: one sentence that names it."""


def prepare_environment() -> str | None:
    """Refuse what cannot work, and complete a home and a user's name where there are none.

    Containers often run under a number that has no home and no line in /etc/passwd, which vLLM, torch, Ray and
    Hugging Face's libraries do not expect.

    Returns:
        A sentence on what was completed, None if nothing was.

    Raises:
        EnvironmentFault: a variable names something that cannot be used.
    """
    environ = os.environ
    environ.setdefault("PYTHONUTF8", "1")  # for child processes, whatever the locale
    _check_certificates(environ)
    _check_folders(environ)
    try:
        user = pwd.getpwuid(os.getuid())
        name, home = user.pw_name, user.pw_dir
    except KeyError:
        name, home = f"uid{os.getuid()}", ""
    if not any(environ.get(variable) for variable in ("LOGNAME", "USER")):
        environ["USER"] = name  # getpass.getuser() asks here first
    home = environ.get("HOME") or home
    note = None
    if not (home and _is_writable(Path(home))):
        home = str(_stand_in_home())
        note = f"no home folder can be written, so caches are kept in {home}: set HOME to keep them longer."
    environ["HOME"] = home
    if os.pathsep in str(cache_dir()):
        raise EnvironmentFault(
            f"The cache lies in {cache_dir()}, and PYTHONPATH cannot hold a path with a colon: set XDG_CACHE_HOME to "
            "another folder."
        )
    _plain_interpreter()
    return note


def _plain_interpreter() -> None:
    """Have child processes find this environment by a path without blanks, quotes or other letters than ASCII's.

    Ray 2.60 (runtime_env/context.py:50) and torch 2.13's compiler (_inductor/cpp_builder.py:2402) write the folder of
    the environment into command lines without quoting it.
    """
    if shlex.quote(sys.executable) == sys.executable or not Path(sys.executable).is_relative_to(sys.prefix):
        return
    folder = tempfile.TemporaryDirectory(prefix="workflow-r1-")
    atexit.register(folder.cleanup)
    link = Path(folder.name) / "environment"
    link.symlink_to(sys.prefix)
    sys.executable = str(link / Path(sys.executable).relative_to(sys.prefix))


def _check_folders(environ: MutableMapping[str, str]) -> None:
    for name in ("TMPDIR", "XDG_CACHE_HOME"):
        if not environ.get(name):
            continue
        folder = Path(environ[name]).absolute()  # child processes start in other folders
        if name == "XDG_CACHE_HOME":
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
        if not _is_writable(folder):
            raise EnvironmentFault(f"{name} is {folder}, where nothing can be written: set it to another folder.")
        environ[name] = str(folder)


def _check_certificates(environ: MutableMapping[str, str]) -> None:
    file, folder = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if file:
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:  # an ssl.SSLError too
            reason = error.strerror or error
            raise EnvironmentFault(
                f"SSL_CERT_FILE is {file}, which holds no certificates that can be read ({reason}): correct it or "
                "unset it."
            ) from None
    if folder and not any(Path(part).is_dir() for part in folder.split(os.pathsep)):
        raise EnvironmentFault(f"SSL_CERT_DIR is {folder}, and there is no such folder: correct it or unset it.")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (path := environ.get(name)) and not Path(path).exists():
            raise EnvironmentFault(f"{name} is {path}, which does not exist: correct it or unset it.")


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _stand_in_home() -> Path:
    """A folder of this user's own among the temporary files."""
    home = Path(tempfile.gettempdir()) / f"home-of-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.lstat().st_uid != os.getuid():
        raise EnvironmentFault(
            f"HOME is not a folder in which something can be written, and {home} is another user's: set HOME."
        )
    return home
