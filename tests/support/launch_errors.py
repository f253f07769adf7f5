"""What a user is told at the launch."""

import pytest

from workflow_r1.runs.recipe import LaunchError


def one_sentence(error: pytest.ExceptionInfo[LaunchError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message
