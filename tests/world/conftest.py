import pytest

from workflow_r1.world.simulated_llm import SimulatedLLM
from workflow_r1.world.world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World.build(seed=1)


@pytest.fixture
def llm(world: World) -> SimulatedLLM:
    return SimulatedLLM(world)
