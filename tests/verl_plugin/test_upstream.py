"""What the plug-in uses of verl's insides: all in one place, and all there."""

import ast
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest

from workflow_r1.verl_plugin import upstream

PLUGIN = Path(upstream.__file__).parent
OTHERS = [file for file in PLUGIN.rglob("*.py") if file != Path(upstream.__file__)]


@pytest.mark.parametrize("module", upstream.REGISTRATIONS)
def test_verl_has_the_modules_that_are_waited_for(module: str):
    import_module(module)


@pytest.mark.parametrize("name", upstream.IMPORTED)
def test_verl_has_what_is_imported(name: str):
    getattr(upstream, name)


@pytest.mark.parametrize("name", upstream.MEMBERS)
def test_verls_classes_have_the_members_that_are_overridden_or_called(name: str):
    own = getattr(upstream, name)
    assert [member for member in upstream.MEMBERS[name].split() if not hasattr(own, member)] == []


@pytest.mark.parametrize("name", upstream.PATCHED)
def test_verl_has_what_is_replaced(name: str):
    getattr(resolve_name(upstream.PATCHED[name]), name)


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.name)
def test_nowhere_else_is_verl_imported_or_patched(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules.append(node.module or "")
        assert [module for module in modules if module.split(".")[0] == "verl"] == []
        assert not (
            isinstance(node, ast.ImportFrom) and "patch_function_wrapper" in [alias.name for alias in node.names]
        )


def test_what_a_release_does_not_have_is_an_import_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(upstream.IMPORTED, "Gone", "verl.trainer.ppo.core_algos:Gone")
    monkeypatch.setitem(upstream.PATCHED, "gone", "verl.trainer.ppo.core_algos")
    with pytest.raises(ImportError, match=r"this release of verl has no verl\.trainer\.ppo\.core_algos:Gone"):
        upstream.Gone  # noqa: B018

    def gone(wrapped, instance, args, kwargs): ...

    with pytest.raises(ImportError, match=r"this release of verl has no verl\.trainer\.ppo\.core_algos:gone"):
        upstream.replaces_verls(gone)


def test_a_module_that_cannot_be_imported_is_left_out_and_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upstream, "LEFT_OUT", {})
    upstream.import_when_imported("sys", "no_such_module")
    assert upstream.LEFT_OUT == {"no_such_module": "No module named 'workflow_r1.verl_plugin.no_such_module'"}
