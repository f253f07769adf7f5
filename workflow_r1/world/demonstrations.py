"""Demonstrations of mixed quality: what the tiny policy is cold-started on.

The scripted policies are executed against the simulated operator LLM, so every observation is a real one. Most
demonstrations are poor workflows and a few are good ones: what reinforcement learning has to do is to find out which.
The facts come from other variants of the world, so that nothing but the language and the habits can be learnt.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from workflow_r1.operators import OperatorPool
from workflow_r1.policy.scripted_session import Script, ScriptedSession
from workflow_r1.protocol import STOP_STRINGS
from workflow_r1.rollout import RolloutLimits, rollout
from workflow_r1.world.in_process import in_process_pool
from workflow_r1.world.language import Query
from workflow_r1.world.scripted import BEHAVIOURS, Behaviour
from workflow_r1.world.simulated_llm import SimulatedLLM
from workflow_r1.world.world import World

# Share of each behaviour by the number of hops; a single hop has nothing to decompose.
MIXTURE: dict[int, dict[str, float]] = {
    1: {"answer_at_once": 0.5, "ask_once": 0.35, "decompose_and_vote": 0.15},
    2: {"answer_at_once": 0.44, "ask_once": 0.26, "decompose": 0.15, "decompose_and_vote": 0.15},
}
MALFORMED = 0.08  # share of these that open with a broken turn
# Share of demonstrations that practise a rare workflow: how to carry it out is learnt from them, to choose it is not.
PRACTICE = 0.3
PRACTISED = ("decompose", "decompose_and_vote", "decompose_and_vote")
VARIANTS = 4


@dataclass(frozen=True)
class Demonstration:
    """One executed workflow: the turns' texts and the observations between them.

    Attributes:
        practice: the first thought, with which a policy chooses its workflow, is not to be learnt.
    """

    question: str
    behaviour: str
    turns: list[str]
    observations: list[str]
    practice: bool = False


def demonstrate(world: World, count: int) -> Iterator[Demonstration]:
    """Execute `count` workflows on questions about other facts than the world's own."""
    rng = random.Random(f"demonstrations {world.seed}")
    worlds = [World.build(world.seed, variant) for variant in range(1, VARIANTS + 1)]
    pools = [in_process_pool(SimulatedLLM(variant)) for variant in worlds]
    by_hops = [{hops: [q for q in w.questions if q.query.hops == hops] for hops in (1, 2)} for w in worlds]

    async def run() -> list[Demonstration]:
        done = []
        for _ in range(count):
            number = rng.randrange(VARIANTS)
            hops = rng.choice((1, 2))
            question = rng.choice(by_hops[number][hops])
            done.append(await _execute(question.query, worlds[number], pools[number], rng))
        return done

    yield from asyncio.run(run())


async def _execute(query: Query, world: World, pool: OperatorPool, rng: random.Random) -> Demonstration:
    practice = rng.random() < PRACTICE
    if practice:
        name = rng.choice(PRACTISED)
        behaviour = BEHAVIOURS[name]
    else:
        shares = MIXTURE[query.hops]
        name = rng.choices(list(shares), list(shares.values()))[0]
        behaviour = _stumble(BEHAVIOURS[name]) if rng.random() < MALFORMED else BEHAVIOURS[name]
    session = _Recorder(behaviour(query, world, rng))
    trajectory = await rollout(query.text, session, pool, RolloutLimits())
    return Demonstration(query.text, name, [turn.text for turn in trajectory.turns], session.observations, practice)


class _Recorder(ScriptedSession):
    def __init__(self, script: Script):
        super().__init__(script)
        self.observations: list[str] = []

    async def observe(self, observation: str) -> bool:
        self.observations.append(observation)
        return await super().observe(observation)


def _stumble(behaviour: Behaviour) -> Behaviour:
    """A broken turn, whose warning is read and shrugged off, before `behaviour`."""

    def script(query: Query, world: World, rng: random.Random) -> Script:
        name = rng.choice(world.entities[query.answer_kind])
        yield rng.choice(
            (
                f"<tool>AnswerGenerate: {query.text}</tool>",
                f"<answer>{name}</answer>",
                f"<think>guess</think>{name}",
            )
        )
        yield from behaviour(query, world, rng)

    return script


def tokenise(demonstration: Demonstration, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids and mask of a demonstration, laid out as rollouts lay them out.

    Returns:
        Two lists of equal length; the mask is 1 where the policy chooses the token and is to learn it. A turn that
        `</answer>` ended is closed for the policy; any other it has to close itself, after a call where a turn may
        hold several (`max_parallel_calls`).
    """
    ids = _encode(tokenizer, [{"role": "user", "content": demonstration.question}])
    mask = [0] * len(ids)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    for turn, observation in zip_longest(demonstration.turns, demonstration.observations):
        chosen = tokenizer.encode(turn, add_special_tokens=False)
        given = []
        if not turn.endswith(STOP_STRINGS[1]):
            chosen.append(tokenizer.eos_token_id)
        elif observation is not None:
            given.append(tokenizer.eos_token_id)
        if observation is not None:
            given += newline + _observation_ids(tokenizer, observation)
        ids += chosen + given
        mask += [1] * len(chosen) + [0] * len(given)
    if demonstration.practice:
        choice = ids.index(tokenizer.convert_tokens_to_ids("</think>"))
        mask[: choice + 1] = [0] * (choice + 1)
    return ids, mask


def _encode(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def _observation_ids(tokenizer: Any, observation: str) -> list[int]:
    """What the chat template adds for an observation: rendered alone, it might get a system message of its own."""
    before = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    message = {"role": "tool", "content": observation}
    text = tokenizer.apply_chat_template([*before, message], tokenize=False, add_generation_prompt=True)
    text = text.removeprefix(tokenizer.apply_chat_template(before, tokenize=False))
    return tokenizer.encode(text, add_special_tokens=False)
