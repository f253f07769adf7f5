from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scripted_endpoint import ScriptedEndpoint

from workflow_r1.evaluation.config import RunSettings
from workflow_r1.world.server import Faults, RunningServer, SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World


@pytest.fixture(scope="session")
def operator_server(world: World) -> Iterator[RunningServer]:
    with running_server(SimulatedEndpoint(SimulatedLLM(world))) as server:
        yield server


@pytest.fixture(scope="session")
def policy_server(world: World) -> Iterator[RunningServer]:
    with running_server(ScriptedEndpoint(world)) as server:  # type: ignore[arg-type]  # all it needs is an app
        yield server


@pytest.fixture
def operators(operator_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """The simulated operator LLM over HTTP, where OPERATOR_* point to; one server for all tests takes far less time."""
    operator_server.endpoint.faults = Faults()
    operator_server.endpoint.counters.clear()
    monkeypatch.setenv("OPERATOR_BASE_URL", operator_server.base_url)
    monkeypatch.setenv("OPERATOR_API_KEY", "key")
    monkeypatch.setenv("OPERATOR_MODEL_NAME", MODEL_NAME)
    return operator_server


@pytest.fixture
def policy(policy_server: RunningServer) -> RunningServer:
    """A scripted policy over HTTP; its `endpoint` is a `ScriptedEndpoint`."""
    policy_server.endpoint.reset()  # type: ignore[attr-defined]
    return policy_server


@pytest.fixture
def questions(world: World, tmp_path: Path) -> Path:
    """Questions of the world, half of them with two hops, as a benchmark file."""
    return world.write_parquet(tmp_path / "data", train=2, validation=24)[1]


@pytest.fixture
def run_settings(questions: Path, policy: RunningServer) -> Callable[..., RunSettings]:
    """Settings for the scripted policy on `questions`; keyword arguments win."""

    def make(**values: Any) -> RunSettings:
        defaults = {"policy": policy.base_url, "prompt": "none", "benchmarks": [str(questions)]}
        if "baseline" in values:
            del defaults["policy"]
        return RunSettings.model_validate({**defaults, **values})

    return make
