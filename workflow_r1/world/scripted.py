"""Scripted policies: fixed workflows that write the turns which a trained policy may come to write.

They are the yardsticks of the world (answering at once earns least, decomposing and voting most) and, executed, the
demonstrations that the tiny policy is cold-started on.
"""

import random
import re
from collections.abc import Callable

from workflow_r1.policy.scripted_session import Script, ScriptedSession
from workflow_r1.protocol import read_observation
from workflow_r1.world.brain import UNKNOWN
from workflow_r1.world.language import Query, parse_query
from workflow_r1.world.world import World

Behaviour = Callable[[Query, World, random.Random], Script]

_CANDIDATE = re.compile(r"^\[Answer \d+\] (.+)$", re.MULTILINE)


def answer_at_once(query: Query, world: World, rng: random.Random) -> Script:
    """Call no operator: guess a name of the right kind."""
    yield _answer("guess", rng.choice(world.entities[query.answer_kind]))


def ask_once(query: Query, world: World, rng: random.Random) -> Script:
    """Hand the whole question to one AnswerGenerate call."""
    observation = yield _call("ask", "AnswerGenerate", query.text)
    yield _answer("done", _read(observation))


def decompose(query: Query, world: World, rng: random.Random) -> Script:
    """Ask one AnswerGenerate per hop."""
    name = query.subject
    for hop, relation in enumerate(query.path, start=1):
        observation = yield _call(f"split hop {hop}", "AnswerGenerate", Query((relation,), name).text)
        name = _read(observation)
    yield _answer("done", name)


def decompose_and_vote(query: Query, world: World, rng: random.Random) -> Script:
    """Per hop, sample three answers and keep the one that they agree on."""
    name = query.subject
    for hop, relation in enumerate(query.path, start=1):
        question = Query((relation,), name).text
        observation = yield _call(f"sample hop {hop}", "MultiAnswerGenerate", question)
        candidates = "".join(f"<solution>{text}</solution>" for text in _CANDIDATE.findall(_read(observation)))
        observation = yield _call("vote", "ScEnsemble", f"<query>{question}</query>{candidates}")
        name = _read(observation)
    yield _answer("done", name)


BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.__name__: behaviour for behaviour in (answer_at_once, ask_once, decompose, decompose_and_vote)
}


def start_session(behaviour: Behaviour, question: str, world: World, rng: random.Random) -> ScriptedSession:
    """A session that works on `question` with `behaviour`.

    Raises:
        ValueError: the question is not one of the world's.
    """
    query = parse_query(question)
    if query is None:
        raise ValueError(f"The scripted policies read only questions of the embedded world, not {question!r}.")
    return ScriptedSession(behaviour(query, world, rng))


def _call(think: str, operator: str, text: str) -> str:
    return f"<think>{think}</think><tool>{operator}: {text}</tool>"


def _answer(think: str, text: str) -> str:
    return f"<think>{think}</think><answer>{text}</answer>"


def _read(observation: str) -> str:
    return read_observation(observation).strip() or UNKNOWN
