"""The package's rooms: data flows one way through them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "workflow_r1"
ROOMS = """
errors records
system protocol gsspo groups watch
credit correction
advantage turn_metrics
trajectory answers
reward endings
data
services
operators observation
rollout metrics
policy
config
world
runs
evaluation verl_plugin
viewer
cli
""".strip().splitlines()
"""From what knows nothing of the others to what uses them; those in one line do not know each other."""

FLOOR = {room: number for number, line in enumerate(ROOMS) for room in line.split()}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_used(file: Path) -> set[str]:
    used = {name.split(".")[1] for name in imports(file) if name.startswith("workflow_r1.")}
    return used & FLOOR.keys()


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


FILES = [file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or file.name != "__init__.py"]


def test_every_module_is_in_a_room():
    assert {room_of(file) for file in FILES} == set(FLOOR)


def test_nothing_imports_upwards():
    upwards = {
        f"{file.relative_to(PACKAGE)} imports {used}"
        for file in FILES
        for used in rooms_used(file) - {room_of(file)}
        if FLOOR[used] >= FLOOR[room_of(file)]
    }
    assert upwards == set()


def test_only_the_plugin_imports_verl_or_ray():
    foreign = {
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in FILES
        if room_of(file) != "verl_plugin"
        for name in imports(file)
        if name.split(".")[0] in ("verl", "ray", "transfer_queue")
    }
    assert foreign == set()


def test_importing_anything_else_installs_no_import_hook():
    modules = [
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in FILES
        if room_of(file) != "verl_plugin" and file.name != "__main__.py"
    ]
    code = f"import importlib, sys\nhooks = list(sys.meta_path)\nfor name in {modules}: importlib.import_module(name)\n"
    code += "print('wrapt.importer' in sys.modules or 'workflow_r1.verl_plugin' in sys.modules, 'verl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
