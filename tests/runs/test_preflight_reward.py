"""A reward function that cannot work is refused before the run, with one sentence."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from workflow_r1.runs import preflight
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.world.server import Faults, RunningServer

ROW = {
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "capital?"}],
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Paris", "paris"]}},
    "extra_info": {"worth": 2.0},
    "level": 3,
}
FUNCTIONS = """
def fine(trajectory, golds, row): return row["extra_info"]["worth"] * row["level"] * (trajectory.answer in golds)
def lower(trajectory, golds): return float(trajectory.answer.lower() in golds)
def column(trajectory, row): return row["difficulty"]
def text(trajectory): return "1"
def nothing(trajectory): pass
def nan(trajectory): return {"reward": 1.0, "acc": float("nan")}
def when_wrong(trajectory, golds): return 1.0 if trajectory.answer is None or trajectory.answer in golds else None
def by_turn(trajectory): return {"reward": 0.0, "turns": [0.5 for turn in trajectory.turns]}
def own(trajectory, weight: float = 1.0): return weight
async def asks(trajectory, operators): return float(len(await operators.call("AnswerGenerate", question="who ?")) > 0)
async def misnames(trajectory, operators): return float(await operators.call("Judgement", question="who ?"))
"""


def config_of(folder: Path, name: str, manager: str = "workflow_r1", **settings: Any) -> DictConfig:
    (folder / "own.py").write_text(FUNCTIONS)
    pq.write_table(pa.Table.from_pylist([ROW, {**ROW, "level": 0}]), folder / "train.parquet")
    reward = {"function": f"{folder / 'own.py'}:{name}", "settings": settings}
    operators = {"max_retries": 0, "cache": "off"}
    return OmegaConf.create(
        {
            "data": {"train_files": [str(folder / "train.parquet")], "val_files": []},
            "reward": {"reward_manager": {"name": manager}},
            "workflow_r1": {"reward": reward, "operators": operators},
        }
    )


def test_groups_are_filtered_by_what_the_reward_returns(tmp_path: Path):
    config = config_of(tmp_path, "own")
    for metric, enable in (("reward", True), ("acc", False)):
        config.algorithm = {"filter_groups": {"enable": enable, "metric": metric}}
        preflight.check_reward(config)
    config.algorithm.filter_groups.enable = True
    with pytest.raises(
        LaunchError, match=r"filter_groups\.metric=acc is no part of .*own returns: name one of reward\."
    ):
        preflight.check_reward(config)


@pytest.mark.parametrize("credit", ["turn_rewards", "zero_sum"])
def test_a_credit_by_turn_wants_a_reward_by_turn(tmp_path: Path, credit: str):
    without, by_turn = config_of(tmp_path, "own"), config_of(tmp_path, "by_turn")
    for config in (without, by_turn):
        config.algorithm = {"gsspo_credit": credit}
    with pytest.raises(LaunchError, match=rf"returns no 'turns', without which algorithm.gsspo_credit={credit} is the"):
        preflight.check_reward(without)
    preflight.check_reward(by_turn)
    without.algorithm.gsspo_information_gain = 0.1  # which is a reward by turn
    preflight.check_reward(without)


@pytest.mark.parametrize("name", ["fine", "own", "asks"])
def test_a_function_that_works_passes(tmp_path: Path, operators: RunningServer, name: str):
    preflight.check_reward(config_of(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("lower", {}, "raised AttributeError: 'NoneType' object has no attribute 'lower'."),
        ("column", {}, "raised KeyError: 'difficulty'."),
        ("text", {}, "returned reward='1', which is no finite number."),
        ("nothing", {}, "returned reward=None, which is no finite number."),
        ("nan", {}, "returned acc=nan, which is no finite number."),
        ("when_wrong", {}, "returned reward=None, which is no finite number."),
        ("own", {"wieght": 2}, "has no setting 'wieght': its settings are weight."),
        ("own", {"weight": "much"}, "cannot have the setting weight='much': "),
        ("own", {"weight": float("inf")}, "returned reward=inf, which is no finite number."),
        ("absent", {}, "is not there: "),
        ("misnames", {}, "raised OperatorConfigError: There is no operator named 'Judgement': choose from"),
    ],
)
def test_one_that_does_not_is_one_sentence(
    tmp_path: Path, operators: RunningServer, name: str, settings: dict[str, Any], sentence: str
):
    with pytest.raises(LaunchError) as error:
        preflight.check_reward(config_of(tmp_path, name, **settings))
    assert str(error.value).startswith(f"workflow_r1.reward: the reward function {tmp_path / 'own.py'}:{name} ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_judge_that_does_not_answer_is_known_before_the_run(tmp_path: Path, operators: RunningServer):
    operators.endpoint.faults = Faults(outage=True)
    config = config_of(tmp_path, "own")
    config.workflow_r1.reward = {"function": "workflow_r1.operators.judge:judged_reward", "settings": {}}
    config.workflow_r1.operators.call_timeout = 2.0
    with pytest.raises(LaunchError, match=r"^The reward workflow_r1\.operators\.judge:judged_reward cannot be had: "):
        preflight.check_reward(config)


def test_another_reward_manager_is_none_of_its_business(tmp_path: Path):
    preflight.check_reward(config_of(tmp_path, "absent", manager="naive"))
