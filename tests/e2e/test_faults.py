"""Training at an endpoint that fails in every way a paid one does, and then at one that stays down; with rewards and
credit by turn."""

import threading
from collections.abc import Iterator
from statistics import fmean

import pytest
import torch
from conftest import Run, small

from workflow_r1.advantage import group_relative_advantages
from workflow_r1.credit import Credit
from workflow_r1.reward import turn_reward
from workflow_r1.trajectory import EndedBy
from workflow_r1.world.server import Faults, RunningServer, SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import World

FAULTS = Faults(rate_limit=0.1, server_error=0.1, hang=0.03, broken_json=0.03, drop=0.02)
STEPS, TRAJECTORIES, AT_ONCE, PER_MINUTE = 2, 8 * 8, 12, 300
PRICE, CREDIT = 0.05, Credit("anchors", discount=0.9)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(SimulatedEndpoint(SimulatedLLM(World.build(1)), latency=0.02, faults=FAULTS)) as server:
        yield server


def settings(server: RunningServer, steps: int, call_timeout: int) -> list[str]:
    operators = {
        "base_url": server.base_url,
        "model": MODEL_NAME,
        "api_key": "none",
        "attempt_timeout": 2,
        "call_timeout": call_timeout,
        "max_concurrency": AT_ONCE,
        "requests_per_minute": PER_MINUTE,
    }
    return [
        *small(steps),
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",  # one update a step in one batch: its metrics are of them all
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384",
        f"trainer.save_freq={STEPS}",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
        "actor_rollout_ref.rollout.agent.num_workers=2",  # two processes, one limit
        *(f"workflow_r1.operators.{name}={value}" for name, value in operators.items()),
        "workflow_r1.reward.function=workflow_r1.reward:turn_reward",
        f"workflow_r1.reward.settings.call={-PRICE}",
        f"algorithm.gsspo_credit={CREDIT.name}",
        f"algorithm.gsspo_discount={CREDIT.discount}",
    ]


@pytest.fixture(scope="module")
def finished(run: Run, server: RunningServer) -> str:
    """What the terminal showed of a run through faults and an outage of 20 seconds."""
    command, shown = run.start(*settings(server, STEPS, call_timeout=120)), []
    for line in command.lines():
        shown.append(line)
        if line.startswith("step   1/"):
            server.endpoint.faults = Faults(outage=True)
            threading.Timer(20, setattr, (server.endpoint, "faults", FAULTS)).start()
    return "".join(shown) + command.finish(code=0)


@pytest.fixture(scope="module")
def stopped(run: Run, server: RunningServer, finished: str) -> str:
    """What the same run, asked for more steps, showed at an endpoint that stays down."""
    command, shown = run.start(*settings(server, STEPS + 4, call_timeout=2)), []
    for line in command.lines():
        shown.append(line)
        if line.startswith("Resuming from step"):  # the launcher has checked the endpoint by then
            server.endpoint.faults = Faults(outage=True)
    return "".join(shown) + command.finish(code=1)


def test_the_run_goes_through_every_fault_and_an_outage(finished: str, server: RunningServer) -> None:
    assert f"step   {STEPS}/{STEPS}" in finished
    met = server.endpoint.counters
    assert all(met[fault] for fault in ("rate_limit", "server_error", "hang", "broken_json", "drop", "outage"))


def test_no_trajectory_is_lost(finished: str, run: Run) -> None:
    for step in range(1, STEPS + 1):
        trajectories = run.trajectories("train", step)
        assert len(trajectories) == TRAJECTORIES
        assert not any(call.failed for trajectory in trajectories for call in trajectory.calls)


def test_every_mask_is_right(finished: str, run: Run) -> None:
    for step in range(1, STEPS + 1):
        metrics = run.metrics[step]
        # The sampler gives a probability for what the policy wrote alone: one token too many would show here...
        assert metrics["training/rollout_probs_diff_max"] < 1e-4
        # ... and one too few here.
        turns = [turn.tokens for trajectory in run.trajectories("train", step) for turn in trajectory.turns]
        tokens = sum(end - start for start, end in turns)
        assert metrics["actor/subsequences_per_response"] == pytest.approx(len(turns) / TRAJECTORIES)
        assert metrics["actor/tokens_per_subsequence"] == pytest.approx(tokens / len(turns))


def test_what_turns_earned_is_recorded_and_reaches_verl(finished: str, run: Run) -> None:
    for step in range(1, STEPS + 1):
        trajectories, metrics = run.trajectories("train", step), run.metrics[step]
        for one in trajectories:
            earned = turn_reward(one, one.golds, call=-PRICE)
            assert [turn.reward for turn in one.turns] == earned["turns"]
            assert one.reward["turns"] == pytest.approx(sum(earned["turns"]))
            assert one.reward["reward"] == pytest.approx(earned["reward"] + one.reward["turns"])
        assert metrics["reward/turns"] == pytest.approx(fmean(one.reward["turns"] for one in trajectories))
        assert metrics["critic/score/mean"] == pytest.approx(fmean(one.reward["reward"] for one in trajectories))


def test_every_turn_has_the_advantage_of_what_was_recorded(finished: str, run: Run) -> None:
    for step in range(1, STEPS + 1):
        trajectories, metrics = run.trajectories("train", step), run.metrics[step]
        rewards = torch.zeros(TRAJECTORIES, max(one.turns[-1].tokens[1] for one in trajectories))
        mask = torch.zeros_like(rewards, dtype=torch.bool)
        for row, one in enumerate(trajectories):
            for turn in one.turns:
                mask[row, slice(*turn.tokens)] = True
                rewards[row, turn.tokens[1] - 1] = turn.reward or 0.0
            rewards[row, one.turns[-1].tokens[1] - 1] += turn_reward(one, one.golds)["reward"]
        states, questions = [one.states for one in trajectories], [one.question for one in trajectories]
        advantages = group_relative_advantages(rewards, mask, questions, credit=CREDIT, states=states)[mask]
        for statistic in ("mean", "max", "min"):
            found = metrics[f"critic/advantages/{statistic}"]
            assert found == pytest.approx(float(getattr(advantages, statistic)()), abs=1e-4)


def test_the_limits_held_at_the_endpoint(finished: str, server: RunningServer) -> None:
    # Where requests time out, a busy endpoint notices late that their clients have gone, and counts them meanwhile.
    assert 1 < server.endpoint.load.max_in_flight <= 1.5 * AT_ONCE
    assert 1 < server.endpoint.load.max_per_minute <= PER_MINUTE


def test_an_endpoint_that_stays_down_ends_the_run_at_a_checkpoint(stopped: str, run: Run) -> None:
    assert f"Stopped, with step {STEPS + 1} saved" in stopped
    assert "workflow_r1.budget.max_failed_fraction" in stopped
    assert (run.folder / f"global_step_{STEPS + 1}" / "actor").is_dir()
    assert run.processes == []


def test_what_it_could_not_serve_taught_the_policy_nothing(stopped: str, run: Run) -> None:
    trajectories = run.trajectories("train", STEPS + 1)
    assert len(trajectories) == TRAJECTORIES
    failed = [trajectory for trajectory in trajectories if any(call.failed for call in trajectory.calls)]
    assert failed
    assert all(trajectory.ended_by is EndedBy.OPERATOR_FAILURE for trajectory in failed)
    kept = [len(trajectory.turns) for trajectory in trajectories if trajectory not in failed]
    assert run.metrics[STEPS + 1]["actor/subsequences_per_response"] == pytest.approx(sum(kept) / max(len(kept), 1))
