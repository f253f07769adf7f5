"""The recipes compose over verl's tree, pass verl's own validation, and unknown overrides are named."""

from copy import deepcopy
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import DictConfig
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from workflow_r1.config import WorkflowConfig
from workflow_r1.rollout import RolloutLimits
from workflow_r1.runs.embedded import stand_ins
from workflow_r1.runs.recipe import EMBEDDED, REFERENCE, SMOLLM2, LaunchError, compose_recipe, total_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipes() -> dict[str, DictConfig]:
    return {name: compose_recipe(name, []) for name in (REFERENCE, EMBEDDED, SMOLLM2)}


@pytest.mark.parametrize("recipe", [REFERENCE, EMBEDDED, SMOLLM2])
def test_a_recipe_passes_verls_validation(recipe, recipes):
    config = deepcopy(recipes[recipe])
    config.actor_rollout_ref.model.path = "somewhere"
    config.data.train_files, config.data.val_files = "a", "b"
    validate_config(config, need_reference_policy(config), need_critic(config))
    WorkflowConfig.parse(config)
    assert not need_critic(config)
    loss = omega_conf_to_dataclass(config.actor_rollout_ref.actor.policy_loss)
    assert (loss.loss_mode, loss.subsequence_weighting) == ("gsspo", "uniform")
    assert config.algorithm.adv_estimator == "gsspo"
    assert config.reward.reward_manager.name == "workflow_r1"
    assert config.actor_rollout_ref.rollout.agent.default_agent_loop == "workflow_r1_agent_loop"


def test_the_reference_recipe_is_the_published_one(recipes):
    config = recipes[REFERENCE]
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert config.actor_rollout_ref.model.path == "Qwen/Qwen2.5-7B-Instruct"
    assert (config.data.train_batch_size, rollout.n, actor.ppo_mini_batch_size) == (512, 8, 128)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (1280, 8192)
    assert actor.optim.lr == 1e-6
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.001, "low_var_kl")
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (3e-3, 4e-3)
    assert WorkflowConfig.parse(config).limits == RolloutLimits(max_calls=20)
    assert (config.trainer.n_gpus_per_node, rollout.tensor_model_parallel_size) == (2, 2)
    assert config.trainer.total_epochs == 2
    assert need_reference_policy(config)


def test_the_embedded_run_asks_no_outside_endpoint(recipes, monkeypatch):
    monkeypatch.setenv("OPERATOR_BASE_URL", "https://example.com/v1")
    assert recipes[EMBEDDED].workflow_r1.operators.base_url is None
    assert recipes[REFERENCE].workflow_r1.operators.base_url == "https://example.com/v1"


def test_a_run_says_what_in_it_is_made_up(recipes):
    assert stand_ins(recipes[EMBEDDED]) == ["the questions", "the operators' LLM", "the million-parameter policy"]
    assert stand_ins(recipes[SMOLLM2]) == ["the questions", "the operators' LLM"]
    config = deepcopy(recipes[EMBEDDED])
    config.data.train_files, config.actor_rollout_ref.model.path = "mine.parquet", "mine"
    config.workflow_r1.operators.base_url = "http://127.0.0.1:8000/v1"
    assert stand_ins(config) == []


def test_the_steps_of_a_run_follow_from_its_data(recipes, tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"a": range(1_100)}), path)
    config = deepcopy(recipes[REFERENCE])
    config.data.train_files = [str(path), str(path)]
    assert total_steps(config) == 2 * (2_200 // 512)
    config.data.train_max_samples = 600
    assert total_steps(config) == 2
    config.trainer.total_training_steps = 7
    assert total_steps(config) == 7
    config.trainer.total_training_steps = None
    config.data.train_files = "hdfs://a/b"
    assert total_steps(config) is None


def test_one_seed_sets_them_all():
    config = compose_recipe(EMBEDDED, ["seed=7"])
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    assert {config.world.seed, config.data.seed, rollout.seed, actor.fsdp_config.seed} == {7}
    assert config.trainer.default_local_dir == "outputs/embedded_seed7"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.total_step=3", "Unknown setting 'trainer.total_step': check its spelling"),
        ("trainer.nnodes", "not a Hydra configuration"),
        ("data.train_files=[a", "not a Hydra configuration"),
    ],
)
def test_an_override_that_cannot_work_gets_one_sentence(override, message):
    with pytest.raises(LaunchError) as error:
        compose_recipe(EMBEDDED, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("choice", ["hardware=6x80", "model=qwen2.5-72b", "objective=ppo", "lora=r8", "search=google"])
def test_a_choice_that_does_not_exist_is_named_with_those_that_do(choice):
    with pytest.raises(LaunchError, match=rf"^There is no {choice}: take one of [\w., -]+\.$"):
        compose_recipe(REFERENCE, [choice])


def test_a_recipe_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(
        LaunchError,
        match=r"There is no recipe 'mine' in .*: take .*_embedded or workflow_r1_smollm2",
    ):
        compose_recipe("mine", [])


def test_the_embedded_comparison_reads_what_the_embedded_run_writes(recipes):
    example = yaml.safe_load((ROOT / "examples" / "compare_embedded.yaml").read_text())
    folder = recipes[EMBEDDED].trainer.default_local_dir
    assert example["runs"]["GSsPO"]["policy"] == folder
    assert example["benchmarks"] == [f"{folder}/data/validation.parquet"]
