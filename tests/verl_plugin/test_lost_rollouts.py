"""What becomes of rollouts that raise, on verl's own worker and buffer: counted, and beyond a bound the run stops."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transfer_queue
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, AgentLoopWorker
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from workflow_r1.runs.recipe import EMBEDDED, compose_recipe
from workflow_r1.trajectory import EndedBy, Trajectory
from workflow_r1.verl_plugin.agent_loop_manager import WorkflowAgentLoopWorker
from workflow_r1.verl_plugin.replay_buffer import WorkflowReplayBuffer
from workflow_r1.verl_plugin.stops import RolloutsLost, describe

N = 4  # rollouts of a question


class Queue:
    """Stands for the transfer queue: tags and fields by partition and key, in this process."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.tags: dict[str, dict[str, dict]] = {"train": {}, "val": {}}
        self.fields: dict[str, dict] = {}
        for name in ("async_kv_put", "async_kv_batch_put", "kv_list", "kv_clear", "kv_batch_get"):
            patch.setattr(transfer_queue, name, getattr(self, name))

    async def async_kv_put(self, key: str, partition_id: str, tag: dict) -> None:
        self.tags[partition_id][key] = {**self.tags[partition_id].get(key, {}), **tag}

    async def async_kv_batch_put(
        self, keys: list[str], fields: TensorDict, tags: list[dict], partition_id: str
    ) -> None:
        self.tags[partition_id].update(zip(keys, tags, strict=True))

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict]:
        return self.tags if partition_id is None else {partition_id: dict(self.tags[partition_id])}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self.tags[partition_id][key]

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        trajectory = Trajectory(question="q", ended_by=EndedBy.ANSWERED).model_dump()
        row = {
            "rm_scores": torch.tensor([1.0]),
            "extra_fields": {"trajectory": trajectory},
            "reward_model": {"ground_truth": {"target": ["Anker"]}},
        }
        return list_of_dict_to_tensordict([{field: row[field] for field in select_fields} for _ in keys])


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


class Rollouts:
    """verl's worker, whose rollouts are `outcome(uid, number)`: what it returns is their output, what it raises too."""

    def __init__(self, patch: pytest.MonkeyPatch, outcome: Callable[[str, int], Any]):
        async def run_agent_loop(
            worker: Any, params: dict, trajectory: dict, *, session_id: int, uid: str, **kwargs: Any
        ):
            output = outcome(uid, session_id)
            validate = trajectory["validate"]
            await worker._agent_loop_postprocess(output, validate, uid=uid, session_id=session_id, **kwargs)

        async def scored(*_: Any, **__: Any) -> None:
            pass

        patch.setattr(AgentLoopWorker, "_run_agent_loop", run_agent_loop)
        patch.setattr(AgentLoopWorker, "_compute_score", scored)
        patch.setattr(AgentLoopWorker, "_compute_teacher_logprobs", scored)
        patch.setattr(AgentLoopWorker, "__init__", lambda self: None)
        patch.setattr(transfer_queue, "init", lambda: None)
        self.worker = WorkflowAgentLoopWorker()
        rollout = {"n": N, "val_kwargs": {"n": N}}
        self.worker.config = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}})
        self.worker.processor = None

    async def run(self, queue: Queue, uids: list[str], validate: bool = False) -> None:
        partition = "val" if validate else "train"
        for uid in uids:
            await queue.async_kv_put(uid, partition, {"is_prompt": True, "status": "pending", "global_steps": 1})
            await self.worker._run_prompt(
                {"uid": uid, "global_steps": 1}, {}, trajectory={"validate": validate, "step": 1}
            )


async def test_no_more_trajectories_run_at_once_than_are_let_in(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    for most, workers, expected in ((None, 1, 3 * N), (2, 1, 2), (8, 2, 4), (1, 8, 1)):
        rollouts = Rollouts(monkeypatch, lambda *_: an_output())
        running, peak = 0, 0

        async def rollout(worker: Any, *_: Any, **__: Any) -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.01)
            running -= 1

        monkeypatch.setattr(AgentLoopWorker, "_run_agent_loop", rollout)
        rollouts.worker.config.actor_rollout_ref.rollout.agent = {"num_workers": workers}
        rollouts.worker.config.workflow_r1 = {"max_trajectories": most}
        await asyncio.gather(*(rollouts.run(queue, [uid]) for uid in "abc"))
        assert peak == expected


def an_output() -> AgentLoopOutput:
    return AgentLoopOutput(prompt_ids=[1], response_ids=[2], response_mask=[1], metrics=AgentLoopMetrics())


def new_buffer(max_lost_fraction: float = 0.1) -> WorkflowReplayBuffer:
    return WorkflowReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create(
            {"poll_interval": 0.0, "workflow_r1": {"max_lost_fraction": max_lost_fraction}}
        ),
    )


def failing(*rollouts: tuple[str, int], error: BaseException | None = None) -> Callable[[str, int], Any]:
    def outcome(uid: str, number: int) -> AgentLoopOutput:
        if (uid, number) in rollouts:
            raise error or RuntimeError("a bug")
        return an_output()

    return outcome


async def test_what_is_lost_is_counted_and_the_rest_is_trained_on(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    uids = [str(number) for number in range(5)]
    rollouts = Rollouts(monkeypatch, failing(("3", 0), ("3", 2)))
    await rollouts.run(queue, uids)
    buffer = new_buffer(max_lost_fraction=0.1)  # two of twenty are just allowed
    batch, metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=5)
    assert metrics["workflow/rollouts_lost"] == 2
    assert len(batch.keys) == 5 * N - 2
    assert not any(queue.tags["train"].get(uid) for uid in uids)
    await rollouts.run(queue, ["6"])
    assert buffer.sample(global_steps=2, partition_id="train", batch_size=1)[1]["workflow/rollouts_lost"] == 0


@pytest.mark.parametrize("partition", ["train", "val"])
async def test_beyond_the_bound_the_run_stops_and_says_what_was_raised(
    partition: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
):
    lost = [("1", number) for number in range(N)]
    rollouts = Rollouts(monkeypatch, failing(*lost, error=KeyError("agent_name")))
    await rollouts.run(queue, ["0", "1", "2"], validate=partition == "val")
    with pytest.raises(RolloutsLost) as error:
        new_buffer(max_lost_fraction=0.3).sample(global_steps=1, partition_id=partition, batch_size=3)
    message = str(error.value)
    assert message.startswith("4 of 12 " + ("validation rollouts" if partition == "val" else "rollouts"))
    assert "more than workflow_r1.max_lost_fraction=0.3 allows: all of them in KeyError: 'agent_name'." in message


async def test_a_batch_of_which_nothing_is_left_has_the_same_sentence(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    rollouts = Rollouts(monkeypatch, failing(*((uid, number) for uid in "01" for number in range(N))))
    await rollouts.run(queue, ["0", "1"])
    with pytest.raises(RolloutsLost, match="8 of 8 rollouts of a batch ended in an exception"):
        new_buffer().sample(global_steps=1, partition_id="train", batch_size=2)


async def test_validations_losses_are_counted_too(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    rollouts = Rollouts(monkeypatch, failing(("0", 0)))
    buffer = new_buffer(max_lost_fraction=0.5)
    for uid in ("0", "1"):  # a validation in two batches
        await rollouts.run(queue, [uid], validate=True)
        buffer.sample(global_steps=1, partition_id="val", batch_size=1)
    assert (buffer.take_lost("val"), buffer.take_lost("val")) == (1, 0)


@pytest.mark.parametrize("nothing", [None, []])
async def test_an_agent_loop_that_returns_nothing_has_lost_its_rollout(
    nothing: Any, queue: Queue, monkeypatch: pytest.MonkeyPatch
):
    rollouts = Rollouts(monkeypatch, lambda uid, number: nothing if number == 0 else an_output())
    await rollouts.run(queue, ["0"])
    with pytest.raises(RolloutsLost, match=r"1 of 4 rollouts .* returned no output"):
        new_buffer().sample(global_steps=1, partition_id="train", batch_size=1)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError("called off")])
async def test_what_ends_a_rollout_without_being_an_exception_is_counted_too(
    error: BaseException, queue: Queue, monkeypatch: pytest.MonkeyPatch
):
    rollouts = Rollouts(monkeypatch, failing(("0", 1), ("0", 2), error=error))
    await rollouts.run(queue, ["0"])
    with pytest.raises(RolloutsLost, match=rf"2 of 4 rollouts .*all of them in {type(error).__name__}: {error}"):
        new_buffer().sample(global_steps=1, partition_id="train", batch_size=1)


async def test_a_failure_that_left_no_reason_is_counted_as_well(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    rollouts = Rollouts(monkeypatch, failing())
    await rollouts.run(queue, ["0"])
    await queue.async_kv_put("0", "train", {"status": "failure"})
    with pytest.raises(RolloutsLost, match=r"1 of 5 rollouts .* an exception, see the log"):
        new_buffer().sample(global_steps=1, partition_id="train", batch_size=1)


async def test_verls_worker_reports_an_agent_loop_that_it_does_not_know(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    run_agent_loop = AgentLoopWorker._run_agent_loop
    rollouts = Rollouts(monkeypatch, failing())
    monkeypatch.setattr(AgentLoopWorker, "_run_agent_loop", run_agent_loop)
    rollouts.worker.config = compose_recipe(EMBEDDED, [f"actor_rollout_ref.rollout.n={N}"])
    await queue.async_kv_put("0", "train", {"is_prompt": True, "status": "pending", "global_steps": 1})
    trajectory = {"validate": False, "step": 1, "sample_index": 0, "rollout_n": 0}
    await rollouts.worker._run_prompt({"uid": "0", "agent_name": None, "raw_prompt": []}, {}, trajectory=trajectory)
    with pytest.raises(RolloutsLost, match=r"4 of 4 .* AssertionError: Agent loop None not registered"):
        new_buffer().sample(global_steps=1, partition_id="train", batch_size=1)


def test_rollouts_of_a_worker_that_died_are_not_waited_for(queue: Queue):
    queue.tags["train"]["0"] = {"is_prompt": True, "status": "running", "global_steps": 1}
    buffer = new_buffer()
    buffer.watch(lambda: "ActorDiedError: out of memory")
    with pytest.raises(RolloutsLost, match="process ended, and its rollouts with it: ActorDiedError: out of memory"):
        buffer.sample(global_steps=1, partition_id="train", batch_size=1)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("two\nlines \x1b[31mred"), "ValueError: two lines [31mred"),
        (RayTaskError("f", "Traceback\n  deep", ValueError("the cause")), "ValueError: the cause"),
        (RayTaskError("f", "Traceback", ValueError("x")).as_instanceof_cause(), "ValueError: x"),
        (RuntimeError(), "RuntimeError:"),
    ],
)
def test_an_exception_is_one_line_that_names_the_cause(error: Exception, shown: str):
    assert describe(error) == shown


def test_a_long_exception_is_cut():
    assert len(describe(ValueError("x" * 10_000))) == 400


def test_the_recipes_use_this_worker():
    agent = compose_recipe(EMBEDDED, []).actor_rollout_ref.rollout.agent
    assert agent.agent_loop_manager_class.endswith(".agent_loop_manager.WorkflowAgentLoopManager")
