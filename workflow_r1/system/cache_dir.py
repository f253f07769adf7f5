"""Where what is slow to make is kept between runs."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from workflow_r1.system.files import made_whole


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/workflow-r1`, or where that is unset `~/.cache/workflow-r1`."""
    return user_cache_path("workflow-r1")


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills where it does not exist; it appears under its name when it is whole.

    Of two runs that need it at once, one makes it and the other waits.

    Args:
        make: gets the path of a folder to create and fill.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with made_whole(folder) as unfinished:
                make(unfinished)
    return folder
