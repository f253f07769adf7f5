"""The embedded world of a run: its data, its cold-started policy, and the simulated endpoint."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.tiny_policy import ensure_tiny_policy
from workflow_r1.world.world import World


@dataclass(frozen=True)
class EmbeddedWorld:
    """What the launcher adds to the configuration and the environment of an embedded run."""

    overrides: list[str]
    environ: dict[str, str]


def cache_dir() -> Path:
    """Where what is slow to make is kept between runs: `$XDG_CACHE_HOME/workflow-r1`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workflow-r1"


@contextmanager
def embedded_world(config: DictConfig, output_dir: Path) -> Iterator[EmbeddedWorld]:
    """Make what the configuration leaves open, and serve the simulated operators while the context is open.

    The data, the policy and the endpoint are each made only where the user named none.
    """
    world = World.build(config.world.seed)
    overrides = []
    if config.data.train_files is None or config.data.val_files is None:
        train, validation = world.write_parquet(
            output_dir / "data", train=config.world.train_questions, validation=config.world.validation_questions
        )
        overrides += [f"data.train_files={train}", f"data.val_files={validation}"]
    if config.actor_rollout_ref.model.path is None:
        overrides.append(f"actor_rollout_ref.model.path={ensure_tiny_policy(world, cache_dir(), config.seed)}")
    if config.workflow_r1.operators.base_url is not None:
        yield EmbeddedWorld(overrides, {})
        return
    key = secrets.token_hex(16)
    with running_server(SimulatedEndpoint(SimulatedLLM(world), api_key=key)) as server:
        environ = {"OPERATOR_BASE_URL": server.base_url, "OPERATOR_API_KEY": key, "OPERATOR_MODEL_NAME": MODEL_NAME}
        yield EmbeddedWorld(overrides, environ)
