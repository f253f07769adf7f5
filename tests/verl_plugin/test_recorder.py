"""What is kept of the trajectories that a run samples."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue
from tensordict import TensorDict
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from workflow_r1.config import WorkflowConfig
from workflow_r1.trajectory import EndedBy, Trajectory, Turn, read_jsonl
from workflow_r1.verl_plugin.recorder import RunRecorder


def row(question: str | None) -> dict[str, Any]:
    """What the agent-loop worker puts into the queue for one trajectory; None for one of another agent loop."""
    extra: dict[str, Any] = {"reward_extra_info": {"acc": 1.0}}
    if question is not None:
        turn = Turn(text="answer", answer="Anker")
        extra["trajectory"] = Trajectory(question=question, turns=[turn], ended_by=EndedBy.ANSWERED).model_dump()
    return {
        "rm_scores": torch.tensor([0.0, 1.0]),
        "extra_fields": extra,
        "reward_model": {"ground_truth": {"target": ["Anker"]}},
    }


class Queue:
    """Stands for the transfer queue: it holds the rows that were put in last."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.rows: list[dict[str, Any]] = []
        patch.setattr(transfer_queue, "kv_batch_get", self.get)

    def get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        rows = [self.rows[int(key)] for key in keys]
        return list_of_dict_to_tensordict([{field: row[field] for field in select_fields} for row in rows])


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


def new_recorder(folder: Path | None) -> RunRecorder:
    return RunRecorder(WorkflowConfig(), folder)


def record(recorder: RunRecorder, queue: Queue, step: int, rows: list[dict[str, Any]], partition: str = "train"):
    queue.rows = rows
    return recorder.record([str(number) for number in range(len(rows))], partition, step)


def sample(recorder: RunRecorder, queue: Queue, step: int, questions: list[str | None], partition: str = "train"):
    return record(recorder, queue, step, [row(question) for question in questions], partition)


def questions_in(path: Path) -> list[str]:
    return [trajectory.question for trajectory in read_jsonl(path)]


def test_a_file_is_named_by_partition_and_step(tmp_path: Path, queue: Queue):
    recorder = new_recorder(tmp_path / "trajectories")
    sample(recorder, queue, 1, ["a", "b"])
    sample(recorder, queue, 2, ["c"])
    sample(recorder, queue, 2, ["d"], "val")
    folder = tmp_path / "trajectories"
    written = {str(path.relative_to(folder)): questions_in(path) for path in folder.rglob("*.jsonl")}
    assert written == {"train/1.jsonl": ["a", "b"], "train/2.jsonl": ["c"], "val/2.jsonl": ["d"]}


def test_the_parts_of_one_step_are_added_to_its_file(tmp_path: Path, queue: Queue):
    recorder = new_recorder(tmp_path)
    sample(recorder, queue, 0, ["a"], "val")
    sample(recorder, queue, 0, ["b"], "val")
    assert questions_in(tmp_path / "val" / "0.jsonl") == ["a", "b"]


def test_a_resumed_run_starts_a_steps_file_anew_and_leaves_the_earlier_ones(tmp_path: Path, queue: Queue):
    interrupted = new_recorder(tmp_path)
    sample(interrupted, queue, 1, ["a"])
    sample(interrupted, queue, 2, ["half of step two"])
    resumed = new_recorder(tmp_path)
    sample(resumed, queue, 2, ["b"])
    sample(resumed, queue, 2, ["c"])
    assert questions_in(tmp_path / "train" / "1.jsonl") == ["a"]
    assert questions_in(tmp_path / "train" / "2.jsonl") == ["b", "c"]


def test_a_record_holds_its_gold_answers_and_what_it_earned(tmp_path: Path, queue: Queue):
    sample(new_recorder(tmp_path), queue, 1, ["a"])
    (trajectory,) = read_jsonl(tmp_path / "train" / "1.jsonl")
    assert trajectory.golds == ["Anker"]
    assert trajectory.reward == {"reward": 1.0, "acc": 1.0}


def test_a_record_holds_what_its_turns_earned_and_a_metric_their_sum(tmp_path: Path, queue: Queue):
    one = row("a")
    one["extra_fields"]["trajectory"]["turns"][0]["reward"] = -0.5
    one["extra_fields"]["reward_extra_info"]["turns"] = -0.5
    one["rm_scores"] = torch.tensor([-0.5, 1.0])
    metrics = record(new_recorder(tmp_path), queue, 1, [one, row("b")])
    assert (metrics["reward/turns"], metrics["reward/reward"]) == (-0.5, 0.75)  # the other has none: that is no zero
    told, untold = read_jsonl(tmp_path / "train" / "1.jsonl")
    assert (told.reward, told.turns[0].reward) == ({"reward": 0.5, "acc": 1.0, "turns": -0.5}, -0.5)
    assert (untold.reward, untold.turns[0].reward) == ({"reward": 1.0, "acc": 1.0}, None)


def test_of_what_a_reward_tells_the_numbers_are_kept(tmp_path: Path, queue: Queue):
    recorder, one = new_recorder(tmp_path), row("a")
    one["extra_fields"]["reward_extra_info"] = {"acc": True, "score": 2, "pred": "Anker", "detail": None}
    record(recorder, queue, 1, [one])
    (trajectory,) = read_jsonl(tmp_path / "train" / "1.jsonl")
    assert trajectory.reward == {"reward": 1.0, "acc": 1.0, "score": 2.0}


@pytest.mark.parametrize("partition", ["train", "val"])
def test_what_could_not_be_scored_is_recorded_and_counted_and_lowers_no_mean(
    tmp_path: Path, queue: Queue, partition: str
):
    recorder, unscored = new_recorder(tmp_path), row("a")
    unscored["extra_fields"]["trajectory"]["unscored"] = "The judge is down."
    unscored["extra_fields"]["reward_extra_info"] = {}
    metrics = record(recorder, queue, 1, [unscored, row("b"), row("c"), row("d")], partition)
    assert (metrics["workflow/unscored"], metrics["reward/acc"], metrics["reward/reward"]) == (0.25, 1.0, 1.0)
    (trajectory, *_) = read_jsonl(tmp_path / partition / "1.jsonl")
    assert (trajectory.reward, trajectory.unscored) == ({}, "The judge is down.")
    assert (recorder.take_unscored(), recorder.take_unscored()) == (0.25 if partition == "val" else None, None)


@pytest.mark.parametrize(("endings", "masked"), [({}, 0.5), ({"deadline": "trained", "answered": "masked"}, 0.75)])
def test_what_a_step_leaves_out_by_how_it_ended_is_counted(queue: Queue, endings: dict[str, str], masked: float):
    rows = [row("a"), row("b"), row("c"), row("d")]
    for one, ended_by in zip(rows, ("deadline", "operator_failure", "answered", "answered"), strict=True):
        one["extra_fields"]["trajectory"]["ended_by"] = ended_by
    recorder = RunRecorder(WorkflowConfig(endings=endings), None)
    assert record(recorder, queue, 1, rows)["workflow/masked"] == masked
    assert "workflow/masked" not in record(recorder, queue, 1, rows, "val")  # of which nothing is trained on


def test_rows_of_other_agent_loops_are_not_recorded(tmp_path: Path, queue: Queue):
    sample(new_recorder(tmp_path), queue, 1, ["a", None])
    assert questions_in(tmp_path / "train" / "1.jsonl") == ["a"]


def test_without_a_folder_nothing_is_written(tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    metrics = sample(new_recorder(None), queue, 1, ["a"])
    assert metrics["reward/acc"] == 1.0
    assert not list(tmp_path.iterdir())
