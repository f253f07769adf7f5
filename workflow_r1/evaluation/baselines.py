"""The baselines: fixed workflows over the same operators, model and budget as the policy.

Each one is a script that writes the turns a policy would have to write, and runs through the same rollout. So its
calls, tokens, failures and answers are counted as the policy's are, and it answers in the same form.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterable

from workflow_r1.evaluation.statistics import most_frequent
from workflow_r1.operators import OperatorPool, OperatorSpec, Sampling
from workflow_r1.operators.builtin import AnswerGenerate
from workflow_r1.policy.scripted_session import Script, ScriptedSession
from workflow_r1.protocol import neutralise, read_observation
from workflow_r1.rollout import RolloutLimits, rollout
from workflow_r1.trajectory import Trajectory

Workflow = Callable[[str, random.Random], Script]

SELF_CONSISTENCY_SAMPLES = 5
ENSEMBLE_VOTES = 5
_SAMPLE = r"\[Answer \d+\] "

DirectAnswer = OperatorSpec(
    name="DirectAnswer",
    use_when="a question needs no thought: answers it at once",
    inputs=AnswerGenerate.inputs,
    system=(
        "You answer questions from your own knowledge, at once and without explaining. Write nothing but the answer, "
        "as short as it can be, between <result> and </result>. If you are unsure, give your best guess."
    ),
    prompt=AnswerGenerate.prompt,
    reply_tag="result",
    sampling=Sampling(max_tokens=128),
)
ChainOfThoughtSamples = AnswerGenerate.model_copy(
    update={
        "name": "ChainOfThoughtSamples",
        "sampling": Sampling(temperature=0.7),
        "samples": SELF_CONSISTENCY_SAMPLES,
    }
)


def direct(question: str, rng: random.Random) -> Script:
    """The model's answer with no thinking: one call."""
    answer = yield _turn(("DirectAnswer", question))
    yield _answer(answer)


def chain_of_thought(question: str, rng: random.Random) -> Script:
    """Thinking, then an answer (Wei et al., arXiv 2201.11903): one AnswerGenerate call."""
    answer = yield _turn(("AnswerGenerate", question))
    yield _answer(answer)


def self_consistency(question: str, rng: random.Random) -> Script:
    """The most frequent of several sampled chains' answers (Wang et al., arXiv 2203.11171)."""
    samples = yield _turn(("ChainOfThoughtSamples", question))
    yield _answer(most_frequent(_parts(samples, _SAMPLE)))


def medprompt(question: str, rng: random.Random) -> Script:
    """Sampled chains, then votes on their answers in shuffled orders (MedPrompt's ensemble, arXiv 2311.16452)."""
    samples = yield _turn(("MultiAnswerGenerate", question))
    candidates = _parts(samples, _SAMPLE)
    if len(candidates) < 2:
        yield _answer(samples)
    orders = list(itertools.permutations(candidates))
    ballots = rng.sample(orders, min(ENSEMBLE_VOTES, len(orders)))
    picks = yield _turn(*(("ScEnsemble", _ballot(question, order)) for order in ballots))
    yield _answer(most_frequent(_parts(picks, r"\[\d+\] ScEnsemble: ")))


def review_revise(question: str, rng: random.Random) -> Script:
    """AnswerGenerate, Review, Revise."""
    solution = _read((yield _turn(("AnswerGenerate", question))))
    so_far = f"<question>{question}</question><solution>{solution}</solution>"
    feedback = _read((yield _turn(("Review", so_far))))
    revised = yield _turn(("Revise", f"{so_far}<feedback>{feedback}</feedback>"))
    yield _answer(revised)


def ensemble(question: str, rng: random.Random) -> Script:
    """MultiAnswerGenerate, ScEnsemble."""
    samples = yield _turn(("MultiAnswerGenerate", question))
    candidates = _parts(samples, _SAMPLE)
    if len(candidates) < 2:
        yield _answer(samples)
    pick = yield _turn(("ScEnsemble", _ballot(question, candidates)))
    yield _answer(pick)


BASELINES: dict[str, Workflow] = {
    "direct": direct,
    "cot": chain_of_thought,
    "self-consistency": self_consistency,
    "medprompt": medprompt,
    "review-revise": review_revise,
    "ensemble": ensemble,
}
OPERATORS = (
    "DirectAnswer",
    "ChainOfThoughtSamples",
    "AnswerGenerate",
    "MultiAnswerGenerate",
    "Review",
    "Revise",
    "ScEnsemble",
)


async def run_baseline(name: str, question: str, operators: OperatorPool, seed: int) -> Trajectory:
    """Work on one question with the baseline `name`.

    Args:
        operators: a pool that offers `OPERATORS`; this module declares the two that are not built in.
        seed: decides the orders of the ballots.
    """
    session = ScriptedSession(BASELINES[name](neutralise(question), random.Random(seed)))
    return await rollout(question, session, operators, RolloutLimits(max_parallel_calls=ENSEMBLE_VOTES))


def _turn(*calls: tuple[str, str]) -> str:
    return "<think>fixed workflow</think>" + "".join(f"<tool>{name}: {text}</tool>" for name, text in calls)


def _answer(observation: str) -> str:
    return f"<think>fixed workflow</think><answer>{_read(observation)}</answer>"


def _read(observation: str) -> str:
    return read_observation(observation).strip() or "(no reply)"


def _parts(observation: str, label: str) -> list[str]:
    """The texts that each stand behind a label at the start of a line; the whole observation where there is none."""
    text = _read(observation)
    parts = [" ".join(part.split()) for part in re.split(f"^{label}", text, flags=re.MULTILINE)]
    return [part for part in parts if part] or [text]


def _ballot(question: str, candidates: Iterable[str]) -> str:
    solutions = "".join(f"<solution>{text}</solution>" for text in candidates)
    return f"<query>{question}</query>{solutions}"
