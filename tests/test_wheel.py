"""A wheel of this package holds all that a run takes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "verl/trainer/config"
RECIPES = {file.stem for file in CONFIG.glob("*.yaml")}

COMPOSE = """
import json, workflow_r1
from workflow_r1.runs import recipe, smollm2
assert smollm2.REQUIREMENTS.is_file()
composed = {file.stem: len(recipe.compose_recipe(file.stem, [])) for file in recipe.CONFIG_DIR.glob("*.yaml")}
print(json.dumps([workflow_r1.__file__, composed]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content; built from a copy, as a build leaves files beside the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("workflow_r1", "verl"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, *build], check=True)
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    with ZipFile(wheel) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"workflow_r1", f"{wheel.stem[:17]}.dist-info"}
    return folder / "site"


@pytest.mark.slow
def test_every_recipe_composes_from_it_in_an_empty_folder(installed: Path, tmp_path: Path):
    environ = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", COMPOSE]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    package, composed = json.loads(done.stdout)
    assert Path(package).is_relative_to(installed)
    assert composed.keys() == RECIPES


@pytest.mark.slow
def test_it_holds_every_file_of_the_package(installed: Path):
    def files(folder: Path) -> set[str]:
        return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix not in ("", ".pyc")}

    recipes = {f"recipes/{file.relative_to(CONFIG)}" for file in CONFIG.rglob("*.yaml")}
    assert files(installed / "workflow_r1") == files(ROOT / "workflow_r1") | recipes
