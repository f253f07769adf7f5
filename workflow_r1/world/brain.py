"""What the simulated operator LLM knows and how reliably: a simulation of competence, not a language model.

The brain holds the facts of a world and errs at set rates. It is better at single-hop questions than at two-hop
ones, spots a wrong solution more often than not, profits from feedback, and picks the majority of candidates. So a
better workflow really earns more, by how much is known, and no model is needed to see it.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from workflow_r1.answers import normalise_answer
from workflow_r1.world.language import Query, find_queries
from workflow_r1.world.world import World

UNKNOWN = "unknown"  # the answer to a question that is not one of the world's

_NEGATIVE = re.compile(r"\b(wrong|incorrect|not|false|mistaken|error)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Reliability:
    """Probabilities of being right, each for one independent sample.

    Attributes:
        single_hop, two_hop: a question answered directly.
        review: the verdict on a solution.
        revise_single_hop, revise_two_hop: a new answer after feedback that found the old one wrong.
        keep: a solution that the feedback found right is left as it is.
        tie: the right one of several candidates with equally many votes is picked.
    """

    single_hop: float = 0.75
    two_hop: float = 0.25
    review: float = 0.8
    revise_single_hop: float = 0.85
    revise_two_hop: float = 0.5
    keep: float = 0.95
    tie: float = 0.65


@dataclass(frozen=True)
class Verdict:
    """A reviewer's opinion of a solution; `text` is how it says so."""

    right: bool

    @property
    def text(self) -> str:
        return "Correct, the solution is right." if self.right else "Wrong, the solution is not right."


class Brain:
    """Competence over the facts of one world. Every method draws from the `rng` that it is given, and nothing else."""

    def __init__(self, world: World, reliability: Reliability | None = None):
        self.world = world
        self.reliability = reliability or Reliability()

    def answer(self, question: str, rng: random.Random) -> str:
        """Answer the first question in `question`: the right name, or a plausible wrong one of the right kind."""
        query = _first_query(question)
        if query is None:
            return UNKNOWN
        single, two = self.reliability.single_hop, self.reliability.two_hop
        return self._recall(query, single if query.hops == 1 else two, rng)

    def review(self, question: str, solution: str, rng: random.Random) -> Verdict:
        """Judge a solution. A question that is not one of the world's has no right solution."""
        right = self._is_right(question, solution)
        return Verdict(right if rng.random() < self.reliability.review else not right)

    def revise(self, question: str, solution: str, feedback: str, rng: random.Random) -> str:
        """Keep a solution that the feedback finds right, most of the time; else answer anew, more carefully."""
        query = _first_query(question)
        if query is None:
            return solution
        if not _NEGATIVE.search(feedback) and rng.random() < self.reliability.keep:
            return solution
        single, two = self.reliability.revise_single_hop, self.reliability.revise_two_hop
        return self._recall(query, single if query.hops == 1 else two, rng)

    def pick(self, question: str, solutions: Sequence[str], rng: random.Random) -> int:
        """The index of the candidate that most candidates agree with; ties are settled by judgement.

        Raises:
            ValueError: there is no candidate.
        """
        if not solutions:
            raise ValueError("Picking needs at least one candidate.")
        keys = [normalise_answer(solution) for solution in solutions]
        votes = Counter(keys)
        leaders = [key for key in votes if votes[key] == max(votes.values())]
        if len(leaders) == 1:
            return keys.index(leaders[0])
        right = [key for key in leaders if self._is_right(question, key)]
        wrong = [key for key in leaders if key not in right]
        judged = right if right and (not wrong or rng.random() < self.reliability.tie) else wrong
        return keys.index(rng.choice(judged))

    def rewrite(self, query: str) -> str:
        """The first question in `query`, plainly put; a query without one comes back trimmed."""
        found = _first_query(query)
        return found.text if found else " ".join(query.split())

    def _recall(self, query: Query, reliability: float, rng: random.Random) -> str:
        truth = self.world.resolve(query)
        if truth and rng.random() < reliability:
            return truth[-1]
        names = self.world.entities[query.answer_kind]
        return rng.choice([name for name in names if not truth or name != truth[-1]])

    def _is_right(self, question: str, solution: str) -> bool:
        query = _first_query(question)
        truth = self.world.resolve(query) if query else None
        return truth is not None and normalise_answer(truth[-1]) in normalise_answer(solution).split()


def _first_query(text: str) -> Query | None:
    return next(iter(find_queries(text)), None)
