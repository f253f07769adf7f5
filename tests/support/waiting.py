"""Waiting for something that another process does, not for ever."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SECONDS = 120.0  # a machine may be busy; what takes longer will not come


def wait_until(condition: Callable[[], T], pause: float = 0.02, within: float = SECONDS) -> T:
    """The first true value of `condition`; fails where there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within:g} s in vain"
        time.sleep(pause)
    return value


async def until(condition: Callable[[], T], pause: float = 0.02, within: float = SECONDS) -> T:
    """As `wait_until`, for tests that let other tasks run meanwhile."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within:g} s in vain"
        await asyncio.sleep(pause)
    return value
