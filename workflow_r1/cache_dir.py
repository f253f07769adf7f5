"""Where what is slow to make is kept between runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/workflow-r1`, or where that is unset `~/.cache/workflow-r1`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workflow-r1"
