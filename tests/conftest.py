"""What all tests share."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: nothing here promises a speed.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, whole training runs last."""
    items.sort(key=lambda item: 2 if "e2e" in item.path.parts else item.get_closest_marker("slow") is not None)
