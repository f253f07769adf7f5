"""What verl finds once this package is installed, and what it costs a user who selects nothing of it."""

import os
import subprocess
import sys

import pytest

from workflow_r1.launch.preflight import check_plugin
from workflow_r1.launch.recipe import LaunchError
from workflow_r1.verl_plugin.check import missing_registrations


def python(code: str, **environ: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
def test_importing_verl_imports_nothing_of_ours_but_the_entry_point():
    """Registration waits for the module whose registry it fills, so `import verl` loads no loss and no client."""
    loaded = python(
        "import sys, verl\n"
        "print(*sorted(m for m in sys.modules if m.startswith(('workflow_r1', 'openai', 'pydantic_settings'))))\n"
    )
    assert loaded.split() == ["workflow_r1", "workflow_r1.verl_plugin"]


def test_everything_is_registered_once_verls_registries_are_imported():
    assert missing_registrations() == []


@pytest.mark.slow
def test_the_launcher_finds_the_plugin_loaded():
    check_plugin(os.environ)


@pytest.mark.slow
def test_a_plugin_that_verl_did_not_load_stops_the_launch_with_one_sentence():
    with pytest.raises(LaunchError, match=r"did not load the Workflow-R1 plug-in \(its entry point was not loaded\)"):
        check_plugin({**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none"})


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["", "cpu"])
def test_the_cpu_platform_is_there_only_when_asked_for(platform):
    code = (
        "import verl\n"
        "from verl.plugin.platform.platform_manager import PlatformRegistry\n"
        "print('cpu' in PlatformRegistry.registered_names())"
    )
    assert python(code, VERL_PLATFORM=platform) == str(platform == "cpu")
