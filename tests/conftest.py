"""What all tests share."""

import gc
import signal

import pytest
from hypothesis import HealthCheck, settings

from workflow_r1.world.world import World

pytest_plugins = ["support.operator_fixtures", "support.evaluation_fixtures"]

# What verl and torch import lives on: looking through it for garbage, over and over, takes seconds.
gc.set_threshold(50_000, 20, 100)

# Tests that run in the background or under nohup inherit ignored signals, and would pass them on to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

# A busy machine is no failure: nothing here promises a speed.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, whole training runs last."""
    items.sort(key=lambda item: 2 if "e2e" in item.path.parts else item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def world() -> World:
    """The embedded recipe's."""
    return World.build(seed=1)
