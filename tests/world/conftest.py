import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from workflow_r1.world.demonstrations import Demonstration, demonstrate
from workflow_r1.world.simulated_llm import SimulatedLLM
from workflow_r1.world.tiny_policy import new_model, vocabulary
from workflow_r1.world.tokenizer import build_tokenizer
from workflow_r1.world.world import World


@pytest.fixture
def llm(world: World) -> SimulatedLLM:
    return SimulatedLLM(world)


@pytest.fixture(scope="session")
def demonstrations(world: World) -> list[Demonstration]:
    return list(demonstrate(world, 600))


@pytest.fixture(scope="session")
def tokenizer(
    world: World, demonstrations: list[Demonstration], tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerBase:
    """As every user of the checkpoint gets it: saved beside a model's configuration, and loaded."""
    path = tmp_path_factory.mktemp("checkpoint")
    built = build_tokenizer(vocabulary(world, demonstrations))
    built.save_pretrained(path)
    new_model(built, seed=0).config.save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)
