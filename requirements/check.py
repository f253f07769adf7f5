"""Exit 0 if this interpreter has what a requirements file pins, torch in the build for its name, and this project.

Runs before anything is installed, so it uses the standard library alone.
"""

import json
import platform
import re
import runpy
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import unquote, urlparse

_PIN = re.compile(r"([\w.-]+)(?:\[[^]]*\])?(?:==([\w.]+))?(?: *; *platform_machine == \"(\w+)\")?")


def missing(requirements: Path) -> list[str]:
    """The requirements, as written, that the interpreter does not meet; only `==` pins have their version checked."""
    lacking = []
    for line in requirements.read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement:
            continue
        name, pin, machine = _PIN.match(requirement).groups()
        if machine not in (None, platform.machine()):
            continue
        try:
            installed = version(name).split("+")[0]  # a local build, 2.13.0+cpu, is that version
        except PackageNotFoundError:
            installed = None
        if installed is None or (pin and installed != pin):
            lacking.append(requirement)
    return lacking


def torch_is_for(hardware: str) -> bool:
    """Whether torch, where it is installed, is a build for "cpu" or "gpu": both are served under the same version."""
    try:
        built = Path(distribution("torch").locate_file("torch/version.py"))
    except PackageNotFoundError:
        return True  # `missing` names it
    facts = runpy.run_path(str(built)) if built.exists() else {}
    return (hardware == "gpu") == any(facts.get(name) for name in ("cuda", "hip", "xpu"))


def this_project_is_installed() -> bool:
    """Editable, from this folder: an installation from elsewhere would run other code than the one here."""
    try:
        origin = distribution("workflow-r1").read_text("direct_url.json")
    except PackageNotFoundError:
        return False
    return (
        bool(origin) and Path(unquote(urlparse(json.loads(origin)["url"]).path)) == Path(__file__).resolve().parents[1]
    )


if __name__ == "__main__":
    file = Path(sys.argv[1])
    lacking = missing(file)
    if not torch_is_for(file.stem):
        lacking.append(f"a build of torch for {file.stem}")
    if not this_project_is_installed():
        lacking.append("workflow-r1, from this folder")
    if lacking:
        print("missing: " + ", ".join(lacking), file=sys.stderr)
    sys.exit(bool(lacking))
