import random

import pytest

from workflow_r1.answers import exact_match
from workflow_r1.operators import OperatorPool
from workflow_r1.protocol import parse_turn
from workflow_r1.rollout import RolloutLimits, rollout
from workflow_r1.trajectory import Trajectory
from workflow_r1.world.in_process import in_process_pool
from workflow_r1.world.scripted import BEHAVIOURS, start_session
from workflow_r1.world.server import SimulatedEndpoint, running_server
from workflow_r1.world.simulated_llm import MODEL_NAME, SimulatedLLM
from workflow_r1.world.world import Question, World


async def execute(behaviour: str, question: Question, world: World, pool: OperatorPool) -> Trajectory:
    session = start_session(BEHAVIOURS[behaviour], question.text, world, random.Random(question.text))
    return await rollout(question.text, session, pool, RolloutLimits())


async def mean_em(behaviour: str, questions: list[Question], world: World, pool: OperatorPool) -> float:
    trajectories = [await execute(behaviour, question, world, pool) for question in questions]
    scores = [exact_match(t.answer or "", [q.answer]) for t, q in zip(trajectories, questions, strict=True)]
    return sum(scores) / len(scores)


async def test_a_better_workflow_earns_more(world: World) -> None:
    pool = in_process_pool(SimulatedLLM(world))
    questions, _ = world.split(train=600, validation=0)
    single = [question for question in questions if question.query.hops == 1]
    two_hop = [question for question in questions if question.query.hops == 2]
    em = {name: await mean_em(name, two_hop, world, pool) for name in BEHAVIOURS}
    # Expected: about 0, 0.25, 0.75², and (0.84 + a tie's 0.65 · 0.14)² = 0.87.
    assert em["answer_at_once"] < 0.1
    assert em["answer_at_once"] + 0.1 < em["ask_once"] < em["decompose"] - 0.2
    assert em["decompose"] + 0.15 < em["decompose_and_vote"]
    assert em["decompose_and_vote"] > 0.75

    em = {name: await mean_em(name, single, world, pool) for name in BEHAVIOURS}
    assert em["answer_at_once"] + 0.5 < em["ask_once"] == em["decompose"] < em["decompose_and_vote"] - 0.1


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_a_script_writes_well_formed_turns_and_answers(world: World, name: str) -> None:
    pool = in_process_pool(SimulatedLLM(world))
    for question in world.questions[::100]:
        trajectory = await execute(name, question, world, pool)
        assert trajectory.num_malformed == 0
        assert trajectory.answer in world.entities[question.query.answer_kind]
        assert all(parse_turn(turn.text).error is None for turn in trajectory.turns)
        per_hop = {"answer_at_once": 0, "ask_once": 1 / question.query.hops, "decompose": 1, "decompose_and_vote": 2}
        assert len(trajectory.calls) == per_hop[name] * question.query.hops


async def test_a_script_runs_over_http_as_in_process(world: World) -> None:
    direct = in_process_pool(SimulatedLLM(world))
    with running_server(SimulatedEndpoint(SimulatedLLM(world))) as server:
        endpoint = {"base_url": server.base_url, "api_key": "any", "model": MODEL_NAME}
        async with OperatorPool.from_env({}, **endpoint, seed=0) as pool:
            for question in world.questions[::300]:
                over_http = await execute("decompose_and_vote", question, world, pool)
                in_process = await execute("decompose_and_vote", question, world, direct)
                assert [turn.text for turn in over_http.turns] == [turn.text for turn in in_process.turns]


def test_a_question_of_another_world_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="only questions of the embedded world"):
        start_session(BEHAVIOURS["ask_once"], "how tall is Everest ?", world, random.Random(0))
