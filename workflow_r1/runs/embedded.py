"""The embedded world of a run: its data, the simulated endpoint, and its cold-started policy."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from workflow_r1.runs.recipe import LaunchError, quoted
from workflow_r1.system.cache_dir import cache_dir
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World


@dataclass(frozen=True)
class EmbeddedWorld:
    """What the launcher adds to the configuration and the environment of an embedded run."""

    overrides: list[str]
    environ: dict[str, str]


@contextmanager
def embedded_world(config: DictConfig, output_dir: Path) -> Iterator[EmbeddedWorld]:
    """Write the world's data, and serve its simulated operators while the context is open.

    Both are made only where the user named none.

    Raises:
        LaunchError: the world has not as many questions as are asked for.
    """
    world = World.build(config.world.seed)
    overrides = []
    if missing := [name for name in ("train_files", "val_files") if config.data[name] is None]:
        sizes = {"train": config.world.train_questions, "validation": config.world.validation_questions}
        try:
            train, validation = world.write_parquet(output_dir / "data", **sizes)
        except ValueError as error:
            raise LaunchError(f"world.train_questions and world.validation_questions do not fit. {error}") from None
        files = {"train_files": train, "val_files": validation}
        overrides = [f"data.{name}={quoted(files[name])}" for name in missing]
    if config.workflow_r1.operators.base_url is not None:
        yield EmbeddedWorld(overrides, {})
        return
    key = secrets.token_hex(16)
    with running_server(SimulatedEndpoint(SimulatedLLM(world), api_key=key)) as server:
        environ = {"OPERATOR_BASE_URL": server.base_url, "OPERATOR_API_KEY": key, "OPERATOR_MODEL_NAME": MODEL_NAME}
        yield EmbeddedWorld(overrides, environ)


def embedded_policy(config: DictConfig) -> Path:
    """The folder of the policy that `world.policy` names, made now (which takes minutes) or by an earlier run.

    Raises:
        LaunchError: there is no such policy, or SmolLM2 cannot be fetched.
    """
    from workflow_r1.runs.smollm2 import cold_started_smollm2  # both are slow to import
    from workflow_r1.world.tiny_policy import ensure_tiny_policy

    world = World.build(config.world.seed)
    if config.world.policy == "tiny":
        return ensure_tiny_policy(world, cache_dir(), config.seed)
    if config.world.policy == "smollm2":
        return cold_started_smollm2(world, config.seed)
    raise LaunchError(
        f"There is no world.policy {config.world.policy!r}: take tiny or smollm2, or set actor_rollout_ref.model.path."
    )


def stand_ins(config: DictConfig) -> list[str]:
    """What of a run is small and made up."""
    is_made_up = {
        "the questions": config.data.train_files is None,
        "the operators' LLM": config.workflow_r1.operators.base_url is None,
        "the million-parameter policy": config.actor_rollout_ref.model.path is None and config.world.policy == "tiny",
    }
    return [part for part, made_up in is_made_up.items() if made_up]
