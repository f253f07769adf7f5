"""Information gain by turn: what the forward pass is asked, and what the turns earn."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue
from omegaconf import OmegaConf
from support.qwen_like_tokenizer import qwen_like_tokenizer
from tensordict import TensorDict
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from workflow_r1.verl_plugin.information_gain import OPENING, InformedTrainer
from workflow_r1.verl_plugin.measuring import MeasuringTrainer

TOKENIZER = qwen_like_tokenizer()
OPENED = TOKENIZER.encode(OPENING, add_special_tokens=False)
WEIGHT, WORLD_SIZE = 0.5, 2
# Two turns; three, with nothing between the prompt and the first; one alone; one that is not trained on.
MASKS = [[1, 1, 0, 0, 1], [1, 0, 1, 0, 0, 1], [1, 1], [0, 0, 0, 0]]
GOLDS = [["Paul Anker", "Anker"], "Velmora", "x", "x"]


def row(number: int) -> dict[str, Any]:
    mask = torch.tensor(MASKS[number])
    return {
        "prompts": torch.arange(3 + number),
        "responses": 100 + torch.arange(len(mask)),
        "response_mask": mask,
        "rm_scores": torch.nn.functional.one_hot(torch.tensor(len(mask) - 1), len(mask)).float(),
        "reward_model": {"ground_truth": {"target": GOLDS[number]}},
    }


class Worker:
    """Its log-probs tell a token and how much stands before: of token x at position p, −x − 1000/p."""

    world_size = WORLD_SIZE

    def __init__(self) -> None:
        self.asked: list[TensorDict] = []

    def compute_log_prob(self, data: TensorDict) -> TensorDict:
        self.asked.append(data)
        rows = []
        for tokens, positions in zip(data["input_ids"].unbind(), data["position_ids"].unbind(), strict=True):
            assert positions.tolist() == list(range(len(tokens)))
            rows.append(-tokens.roll(-1).float() - 1000 / (positions + 1))
        return TensorDict({"log_probs": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, len(rows))


class Trainer(InformedTrainer):
    def __init__(self, weight: float, response_length: int = 100):
        rollout = {"prompt_length": 50, "response_length": response_length, "temperature": 0.7}
        rollout["log_prob_micro_batch_size_per_gpu"] = None
        config = {"algorithm": {"gsspo_information_gain": weight}, "actor_rollout_ref": {"rollout": rollout}}
        self.config, self.tokenizer, self.actor_rollout_wg = OmegaConf.create(config), TOKENIZER, Worker()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What goes into the transfer queue, whose keys begin with a row's number."""
    written: list[Any] = []

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        rows = [row(int(key.split("_")[0])) for key in keys]
        return list_of_dict_to_tensordict([{name: fields[name] for name in select_fields} for fields in rows])

    monkeypatch.setattr(transfer_queue, "kv_batch_get", get)
    monkeypatch.setattr(transfer_queue, "kv_batch_put", lambda keys, partition_id, fields: written.append(fields))
    monkeypatch.setattr(MeasuringTrainer, "_compute_advantage", lambda self, batch, metrics: "advantages")
    return written


class Batch(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.keys)


def advantages(trainer: Trainer, *numbers: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    batch = Batch(keys=[f"{number}_0_0" for number in numbers], partition_id="train")
    assert trainer._compute_advantage(batch, metrics) == "advantages"
    return metrics


def level(number: int, start: int, gold: str) -> float:
    """The mean log-prob of the gold answer before the turn that begins at `start`, as `Worker` has it."""
    answer = TOKENIZER.encode(gold, add_special_tokens=False)
    before = 3 + number + start + len(OPENED)
    return sum(-token - 1000 / (before + place) for place, token in enumerate(answer)) / len(answer)


def test_a_turn_earns_by_how_much_it_raised_the_gold_answer(written: list[Any]):
    trainer = Trainer(WEIGHT)
    metrics = advantages(trainer, 0, 1, 2, 3)
    first = level(0, 4, "Paul Anker") - level(0, 0, "Paul Anker")
    second = [level(1, 2, "Velmora") - level(1, 0, "Velmora"), level(1, 5, "Velmora") - level(1, 2, "Velmora")]
    [fields] = written
    expected = [
        [0, 0, 0, WEIGHT * first, 1],
        [0, WEIGHT * second[0], 0, 0, WEIGHT * second[1], 1],
        [0, 1],
        [0, 0, 0, 1],
    ]
    for scores, values in zip(fields["rm_scores"].unbind(), expected, strict=True):
        torch.testing.assert_close(scores, torch.tensor(values, dtype=torch.float32), atol=1e-4, rtol=1e-5)
    assert metrics["reward/information_gain"] == pytest.approx((first + sum(second)) / 3, abs=1e-4)
    assert metrics["timing_s/information_gain"] > 0


def test_the_forward_pass_is_asked_in_batches_that_every_rank_has_a_part_of(written: list[Any]):
    trainer = Trainer(WEIGHT)
    advantages(trainer, 1, 2, 3)
    [asked] = trainer.actor_rollout_wg.asked  # the three turns of the first
    assert len(asked) == 4
    assert (asked["calculate_entropy"], asked["compute_loss"], asked["temperature"]) == (False, False, 0.7)
    answer = TOKENIZER.encode("Velmora", add_special_tokens=False)
    context = [*range(4), 100, 101, *OPENED, *answer]
    assert asked["input_ids"].unbind()[1].tolist() == context
    trainer = Trainer(WEIGHT)
    advantages(trainer, 1, 0)
    assert [len(asked) for asked in trainer.actor_rollout_wg.asked] == [2, 2, 2]


def test_what_is_too_long_for_a_micro_batch_loses_its_beginning(written: list[Any]):
    trainer = Trainer(WEIGHT, response_length=-40)
    advantages(trainer, 0)
    assert [len(tokens) for tokens in trainer.actor_rollout_wg.asked[0]["input_ids"].unbind()] == [10, 10]


@pytest.mark.parametrize(("weight", "numbers"), [(0.0, (0, 1)), (WEIGHT, (2, 3))])
def test_where_there_is_nothing_to_gain_nothing_is_asked_written_or_shown_as_zero(
    written: list[Any], weight: float, numbers: tuple
):
    trainer = Trainer(weight)
    assert "reward/information_gain" not in advantages(trainer, *numbers)
    assert (trainer.actor_rollout_wg.asked, written) == ([], [])


def test_several_outputs_of_a_rollout_are_refused_with_what_to_set(written: list[Any]):
    batch = Batch(keys=["0_0_0", "0_0_1"], partition_id="train")
    with pytest.raises(ValueError, match="gsspo_information_gain does not take: leave it at 0, or return one"):
        Trainer(WEIGHT)._compute_advantage(batch, {})
