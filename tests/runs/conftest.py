"""The recipes, composed once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, compose_recipe

_OF_BATCHES = ("n", "log_prob_use_dynamic_bsz", "log_prob_micro_batch_size", "log_prob_micro_batch_size_per_gpu")


@pytest.fixture(scope="session")
def composed() -> dict[str, DictConfig]:
    return {name: compose_recipe(name, []) for name in (REFERENCE, EMBEDDED)}


@pytest.fixture(scope="session")
def sections(composed: dict[str, DictConfig]) -> dict[str, Any]:
    """Of the embedded recipe, what is read before a run: of all of it a copy takes long."""
    whole: Any = OmegaConf.to_container(composed[EMBEDDED], resolve=True)
    parts = {name: whole["actor_rollout_ref"][name] for name in ("actor", "model")}
    parts["actor"] = {name: value for name, value in parts["actor"].items() if name not in ("profiler", "qat")}
    rollout = {name: value for name, value in whole["actor_rollout_ref"]["rollout"].items() if name in _OF_BATCHES}
    ref = {name: value for name, value in whole["actor_rollout_ref"]["ref"].items() if name in _OF_BATCHES}
    return {
        "trainer": whole["trainer"],
        "data": whole["data"],
        "algorithm": {name: whole["algorithm"][name] for name in ("adv_estimator", "use_kl_in_reward")},
        "critic": {"enable": whole["critic"]["enable"], "model": {"path": whole["critic"]["model"]["path"]}},
        "actor_rollout_ref": {**parts, "rollout": rollout, "ref": ref},
    }


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "64.parquet"
    pq.write_table(pa.table({"question": range(64)}), path)
    return path


@pytest.fixture
def recipe(sections: dict[str, Any], questions: Path) -> Callable[..., DictConfig]:
    """The embedded recipe with 64 questions, and with the settings that a test changes."""

    def changed(settings: dict[str, Any] | None = None) -> DictConfig:
        config = OmegaConf.create(sections)
        for name, value in {"data.train_files": str(questions), **(settings or {})}.items():
            OmegaConf.update(config, name, value, force_add=True)
        return config

    return changed
