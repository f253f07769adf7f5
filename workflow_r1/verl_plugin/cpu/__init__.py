"""verl and vLLM on a machine without a GPU: nothing here runs unless `VERL_PLATFORM=cpu` is set."""

import os


def is_selected() -> bool:
    """Whether this process is one of a run on the CPU."""
    return os.environ.get("VERL_PLATFORM", "").lower() == "cpu"
