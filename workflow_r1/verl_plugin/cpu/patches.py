"""The places in verl 0.9.1 that a CPU needs and no setting reaches: one function each, named for what it replaces."""

from typing import Any

from wrapt import patch_function_wrapper


@patch_function_wrapper("verl.utils.distributed", "initialize_global_process_group_ray")
def initialize_global_process_group_ray(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """verl 0.9.1 builds the backend string `cpu:gloo,cpu:gloo` (utils/distributed.py:89), which torch rejects."""
    return wrapped(*args, **{"backend": "cpu:gloo", **kwargs})
