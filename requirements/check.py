"""Exit 0 if this interpreter has every package that a requirements file pins, in that version, and this project.

Runs before anything is installed, so it uses the standard library alone.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path


def missing(requirements: Path) -> list[str]:
    """The requirements, as written, that the interpreter does not meet; only `==` pins have their version checked."""
    lacking = []
    for line in requirements.read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement:
            continue
        name, pin = re.match(r"([\w.-]+)(?:\[[^]]*\])?(?:==([\w.]+))?", requirement).groups()
        try:
            installed = version(name).split("+")[0]  # a local build, 2.13.0+cpu, is that version
        except PackageNotFoundError:
            installed = None
        if installed is None or (pin and installed != pin):
            lacking.append(requirement)
    return lacking


def this_project_is_installed() -> bool:
    """Editable, from this folder: an installation from elsewhere would run other code than the one here."""
    try:
        origin = distribution("workflow-r1").read_text("direct_url.json") or ""
    except PackageNotFoundError:
        return False
    return Path(__file__).resolve().parents[1].as_uri() in origin


if __name__ == "__main__":
    lacking = missing(Path(sys.argv[1]))
    if not this_project_is_installed():
        lacking.append("workflow-r1, from this folder")
    if lacking:
        print("missing: " + ", ".join(lacking), file=sys.stderr)
    sys.exit(bool(lacking))
