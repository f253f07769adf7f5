"""A user's own code by its name."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def load_object(name: str) -> Any:
    """What `module:object` or `path/to/file.py:object` names.

    Raises:
        ImportError: there is none; the message goes on where the name ends ("cannot be imported: ...").
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise ImportError("has to be named as module:function, or as path/to/file.py:function.")
    try:
        module = _from_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # whatever a module does while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise ImportError(f"cannot be imported ({reason}).") from error
    if not hasattr(module, attribute):
        raise ImportError(f"is not there: {source} has no {attribute}.")
    return getattr(module, attribute)


def _from_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    spec = importlib.util.spec_from_file_location(f"_loaded_from_{path.stem}", path)
    assert spec is not None, "its name ends in .py"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    return module
