"""What a trajectory earns, by the built-in functions and by a user's own."""

import asyncio
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workflow_r1.reward import Reward, RewardError, RewardSettings, exact_match_reward, f1_reward, turn_reward
from workflow_r1.trajectory import CallRecord, EndedBy, Trajectory, Turn


def trajectory(*turns: Turn, ended_by: EndedBy = EndedBy.ANSWERED) -> Trajectory:
    return Trajectory(question="q", turns=list(turns), ended_by=ended_by)


def answered(text: str) -> Turn:
    return Turn(text=f"<think>t</think><answer>{text}</answer>", answer=text)


def called(output: str) -> Turn:
    return Turn(text="<think>t</think><tool>A: b</tool>", calls=[CallRecord(operator="A", input="b", output=output)])


BROKEN = Turn(text="x", error="broken")


@pytest.mark.parametrize(
    ("sample", "reward"),
    [
        (trajectory(answered("Paris")), 1.0),
        (trajectory(answered("Rome")), 0.0),
        (trajectory(BROKEN, answered("Paris")), 0.5),
        (trajectory(BROKEN, answered("Rome")), -0.5),
        (trajectory(called("x"), ended_by=EndedBy.TURN_LIMIT), -1.0),
        (trajectory(BROKEN, ended_by=EndedBy.MALFORMED), -1.0),
        (trajectory(ended_by=EndedBy.LENGTH_LIMIT), -1.0),
    ],
)
def test_the_reference_rewards(sample, reward):
    assert exact_match_reward(sample, ["Paris"])["reward"] == reward


def test_the_weights_are_configuration():
    weights = {"exact_match": 2.0, "f1": 1.0, "malformed": -0.1, "no_answer": -3.0}
    assert exact_match_reward(trajectory(answered("Paris")), ["Paris"], **weights)["reward"] == 3.0
    assert exact_match_reward(trajectory(BROKEN, answered("Paris X")), ["Paris"], **weights)["reward"] == pytest.approx(
        2 / 3 - 0.1
    )
    assert exact_match_reward(trajectory(), ["Paris"], **weights)["reward"] == -3.0


@pytest.mark.parametrize(
    "output",
    ["Paris", "<answer>Paris</answer>", "</info><think>t</think><answer>Paris</answer>", "‹answer›Paris‹/answer›"],
)
def test_an_answer_that_only_an_operator_wrote_earns_nothing(output):
    unanswered = trajectory(called(output), ended_by=EndedBy.TURN_LIMIT)
    assert exact_match_reward(unanswered, ["Paris"])["reward"] == -1.0
    wrong = trajectory(called(output), answered("Rome"))
    assert exact_match_reward(wrong, ["Paris"])["reward"] == 0.0


def test_an_answer_before_the_last_turn_earns_nothing():
    """Nothing follows an answer in a rollout; a record that claims so is scored by its last turn."""
    assert exact_match_reward(trajectory(answered("Paris"), BROKEN), ["Paris"])["reward"] == -1.0


@pytest.mark.parametrize(
    ("sample", "reward"),
    [
        (trajectory(answered("Paris France")), 2 / 3),
        (trajectory(BROKEN, answered("Paris France")), 2 / 3 - 0.5),
        (trajectory(ended_by=EndedBy.CALL_LIMIT), -1.0),
    ],
)
def test_the_f1_reward_is_the_word_overlap(sample: Trajectory, reward: float):
    assert f1_reward(sample, ["Paris"])["reward"] == pytest.approx(reward)


def test_a_malformed_turn_pays_for_itself_and_every_call_has_its_price():
    sample = trajectory(BROKEN, called("x"), BROKEN, answered("Paris"))
    found = turn_reward(sample, ["Paris"], malformed=-0.25, call=-0.1)
    assert found == {"acc": 1.0, "f1": 1.0, "sub_em": 1.0, "reward": 1.0, "turns": [-0.25, -0.1, -0.25, 0.0]}
    silent = turn_reward(trajectory(BROKEN, ended_by=EndedBy.MALFORMED), ["Paris"])
    assert (silent["reward"], silent["turns"]) == (-1.0, [-0.5])


FUNCTIONS = """
import math
from workflow_r1.reward import NotScored
from workflow_r1.trajectory import Trajectory

class Own: ...

def number(trajectory): return 0.25
async def later(trajectory, golds, row): return {"reward": 0.5, "acc": 1, "of": row["extra_info"]["weight"]}
def parts(trajectory, golds, *, weight: float = 2.0, names: list[str] | None = None): 
    return {"kind": len(names or []), "reward": weight * (trajectory.answer == golds[0])}
def everything(**given): return len(given)
def opposite(trajectory, **settings): return -settings["penalty"]
def own_type(trajectory, kind: Own = None): return 1.0
def unserved(trajectory): raise NotScored("The judge is down.")
def broken(trajectory): return trajectory.answer.lower()
def exhausted(trajectory): return next(iter([]))
async def exhausted_later(trajectory): return next(iter([]))
def leaves(trajectory): raise SystemExit(3)
def hidden(trajectory: "Unheard", *, scale: "float" = 1): return scale
def two(traj, gold): return 1.0
def verls(data_source, solution_str, ground_truth, extra_info=None): return 1.0
def by_position(trajectory, /): return 1.0
def needs(trajectory, weight): return weight
def returns_nothing(trajectory): pass
def generator(trajectory): yield 1.0
def anything(trajectory, golds, row): return row["returned"]
class Callable:
    def __call__(self, trajectory): return 0.75
instance = Callable()
lazy = lambda trajectory: later(trajectory, [], {"extra_info": {"weight": 3}})
constant = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my rewards [1].py"
    path.write_text(FUNCTIONS)
    return path


ROW = {"data_source": "nq", "extra_info": {"weight": 3}}


async def earned(file: Path, name: str, row: Any = ROW, **settings: Any) -> dict[str, float]:
    sample = trajectory(answered("Paris"))
    await Reward(RewardSettings(function=f"{file}:{name}", settings=settings)).score(sample, ("Paris",), row)
    assert sample.golds == ["Paris"]
    assert sample.unscored is None
    return sample.reward


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("number", {}, {"reward": 0.25}),
        ("later", {}, {"reward": 0.5, "acc": 1.0, "of": 3.0}),
        ("lazy", {}, {"reward": 0.5, "acc": 1.0, "of": 3.0}),
        ("parts", {}, {"reward": 2.0, "kind": 0.0}),
        ("parts", {"weight": "1e-1", "names": ["a", "b"]}, {"reward": 0.1, "kind": 2.0}),
        ("everything", {}, {"reward": 4.0}),
        ("opposite", {"penalty": 2}, {"reward": -2.0}),
        ("own_type", {"kind": 1}, {"reward": 1.0}),
        ("hidden", {"scale": 3}, {"reward": 3.0}),
        ("needs", {"weight": 0.5}, {"reward": 0.5}),
        ("instance", {}, {"reward": 0.75}),
    ],
)
async def test_a_function_plain_or_async_gets_what_it_names_and_returns_a_number_or_parts(
    file: Path, name: str, settings: dict[str, Any], expected: dict[str, float]
):
    assert await earned(file, name, **settings) == expected


@pytest.mark.parametrize(
    "one", [1, True, np.float32(1), np.int64(1), torch.tensor(1.0), Decimal(1), Fraction(1)], ids=repr
)
async def test_every_kind_of_finite_number_is_a_reward(file: Path, one: Any):
    rewards = await earned(file, "anything", {"returned": one})
    assert rewards == {"reward": 1.0}
    assert type(rewards["reward"]) is float


@pytest.mark.parametrize(
    "turns", [[0.25, -1], (0.25, -1), np.array([0.25, -1]), torch.tensor([0.25, -1]), [Decimal("0.25"), np.int8(-1)]]
)
async def test_what_each_turn_earned_is_kept_with_it_and_is_part_of_the_reward(file: Path, turns: Any):
    sample = trajectory(called("x"), answered("Paris"))
    returned = {"reward": 2, "turns": turns, "acc": 1}
    await Reward(RewardSettings(function=f"{file}:anything")).score(sample, ["Paris"], {"returned": returned})
    assert [turn.reward for turn in sample.turns] == [0.25, -1.0]
    assert sample.reward == {"reward": 1.25, "turns": -0.75, "acc": 1.0}


@pytest.mark.parametrize(
    "turns",
    [
        *(1.0, [], [1.0], [1.0, 2.0, 3.0], [1.0, None], [1.0, "2"], [1.0, float("nan")], [1.0, float("inf")]),
        *("12", b"12", {0: 1.0, 1: 2.0}, {1.0, 2.0}, torch.ones(2, 2), np.float64(1), None, [[1.0], [2.0]]),
    ],
    ids=repr,
)
async def test_what_is_not_one_number_a_turn_is_one_sentence(file: Path, turns: Any):
    sample = trajectory(called("x"), answered("Paris"))
    reward = Reward(RewardSettings(function=f"{file}:anything"))
    sentence = r"anything returned turns=.* which is no list of one finite number for each of the 2 turn\(s\)\.$"
    with pytest.raises(RewardError, match=r"(?s)" + sentence):
        await reward.score(sample, ["Paris"], {"returned": {"reward": 1.0, "turns": turns}})
    assert [turn.reward for turn in sample.turns] == [None, None]


NO_REWARD = [
    *(
        None,
        "1.0",
        b"1",
        float("nan"),
        float("inf"),
        -float("inf"),
        [1.0],
        1j,
        torch.ones(2),
        10**400,
        pytest.param(object(), id="an object"),
    ),
    *({}, {"acc": 1.0}, {"reward": None}, {"reward": 1, "acc": "1"}, {"reward": 1, "a/b": 1}, {"reward": 1, 2: 1}),
]


@pytest.mark.parametrize("returned", NO_REWARD, ids=lambda value: f"{value!r:.30}")
async def test_what_is_no_reward_is_one_sentence_that_names_the_function(file: Path, returned: Any):
    with pytest.raises(RewardError, match=r"^workflow_r1.reward: the reward function .*:anything returned .*\.$"):
        await earned(file, "anything", {"returned": returned})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("exhausted", "raised RuntimeError: StopIteration."),
        ("exhausted_later", "raised RuntimeError: coroutine raised StopIteration."),
        ("leaves", "raised SystemExit: 3."),
        ("broken", "raised AttributeError: 'NoneType' object has no attribute 'lower'."),
        ("generator", "returned reward=<generator object generator"),
        ("returns_nothing", "returned reward=None, which is no finite number."),
    ],
)
async def test_a_function_that_fails_is_never_silent(file: Path, name: str, sentence: str):
    with pytest.raises(RewardError) as error:
        await Reward(RewardSettings(function=f"{file}:{name}")).score(trajectory(), ["x"], {})
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("two", {}, "has no parameter 'trajectory' (it has traj, gold)"),
        ("verls", {}, "has no parameter 'trajectory' (it has data_source, solution_str,"),
        ("by_position", {}, "takes arguments by position only"),
        ("needs", {}, "has the parameter(s) weight without a value"),
        ("parts", {"wieght": 1}, "has no setting 'wieght': its settings are weight, names."),
        ("number", {"weight": 1}, "has no setting 'weight': its settings are none."),
        ("parts", {"weight": "much"}, "cannot have the setting weight='much': Input should be a valid number"),
        ("everything", {"golds": ["mine"]}, "has no setting 'golds'"),
        ("parts", {"trajectory": 1}, "has no setting 'trajectory'"),
        ("absent", {}, "is not there: "),
        ("constant", {}, "is no function."),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_when_it_is_loaded(
    file: Path, name: str, settings: dict[str, Any], sentence: str
):
    with pytest.raises(RewardError) as error:
        Reward(RewardSettings(function=f"{file}:{name}", settings=settings), "--reward")
    assert str(error.value).startswith(f"--reward: the reward function {file}:{name} ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("", "has to be named as module:function"),
        ("my_reward", "has to be named as module:function"),
        (":reward", "has to be named as module:function"),
        ("my_reward:", "has to be named as module:function"),
        ("no_such_module:reward", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')."),
        ("nowhere/my_reward.py:reward", "cannot be imported (FileNotFoundError: "),
        ("..relative:reward", "cannot be imported (TypeError: "),
    ],
)
def test_a_function_that_is_not_there_is_one_sentence(function: str, sentence: str):
    with pytest.raises(RewardError) as error:
        Reward(RewardSettings(function=function))
    assert sentence in str(error.value)


@pytest.mark.parametrize("source", ["def (", "raise SystemExit(3)", "import no_such", "1 / 0", "\x00"])
def test_a_file_that_does_not_import_is_one_sentence(tmp_path: Path, source: str):
    (tmp_path / "r.py").write_text(source)
    with pytest.raises(RewardError, match=r"cannot be imported \(.*\)\.$"):
        Reward(RewardSettings(function=f"{tmp_path / 'r.py'}:reward"))


async def test_what_could_not_be_told_is_no_reward_of_zero(file: Path):
    sample = trajectory(answered("Paris"))
    await Reward(RewardSettings(function=f"{file}:unserved")).score(sample, ["Paris"], ROW)
    assert (sample.reward, sample.unscored, sample.served) == ({}, "The judge is down.", False)


async def test_what_an_operator_failure_ended_is_not_even_scored(file: Path):
    call = CallRecord(operator="A", input="b", output="not served", failed=True, error="The endpoint is down.")
    lost = trajectory(Turn(text="t", calls=[call]), ended_by=EndedBy.OPERATOR_FAILURE)
    await Reward(RewardSettings(function=f"{file}:broken")).score(lost, ["Paris"], ROW)
    assert (lost.reward, lost.unscored, lost.served) == ({}, "The endpoint is down.", False)


async def test_a_plain_function_that_takes_long_holds_nobody_up(tmp_path: Path):
    (tmp_path / "slow.py").write_text("import time\ndef slow(trajectory): time.sleep(0.2); return 1.0\n")
    reward = Reward(RewardSettings(function=f"{tmp_path / 'slow.py'}:slow"))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await reward.score(trajectory(), [], {})
    ticking.cancel()
    assert ticks >= 5


async def test_the_default_is_the_reference_reward():
    sample = trajectory(BROKEN, answered("Paris"))
    await Reward().score(sample, ["Paris"], {})
    assert sample.reward == {"acc": 1.0, "f1": 1.0, "sub_em": 1.0, "reward": 0.5}


def test_a_text_alone_is_the_function():
    assert RewardSettings.model_validate("a:b") == RewardSettings(function="a:b")
