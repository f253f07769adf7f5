"""The places in verl 0.9.1 that a CPU needs and no setting reaches: one function each, named for what it replaces."""

from types import ModuleType
from typing import Any

from wrapt import when_imported

from workflow_r1.verl_plugin.upstream import PATCHED, replaces_verls


@replaces_verls
def initialize_global_process_group_ray(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
    """verl 0.9.1 builds the backend string `cpu:gloo,cpu:gloo` (utils/distributed.py:89), which torch rejects."""
    return wrapped(*args, **{"backend": "cpu:gloo", **kwargs})


@when_imported(PATCHED["CPUOffloadPolicy"])
def cpu_offload_policy(module: ModuleType) -> None:
    """verl 0.9.1 pins the memory of a reference policy (engine/fsdp/transformer_impl.py:462), which takes a GPU."""
    policy = module.CPUOffloadPolicy
    module.CPUOffloadPolicy = lambda pin_memory: policy(pin_memory=False)  # type: ignore[attr-defined]
