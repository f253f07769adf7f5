"""The closed world: invented entities, the facts about them, the questions one can ask, and their parquet."""

import itertools
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workflow_r1.data.examples import Example
from workflow_r1.data.table import write_examples
from workflow_r1.world.language import PATHS, RELATIONS, Kind, Query

POPULATION: dict[Kind, int] = {
    "person": 80,
    "film": 60,
    "book": 60,
    "company": 60,
    "city": 60,
    "river": 30,
    "country": 20,
}
_ONSETS = ("B", "Br", "C", "D", "Dr", "F", "G", "Gl", "H", "K", "L", "M", "N", "P", "Qu", "R", "S", "Sk", "T", "V", "Z")
_VOWELS = "aeiou"
_MIDDLES = ("b", "d", "l", "lm", "m", "n", "nd", "r", "rt", "s", "st", "v", "x", "z")
# An ending tells the kind to a human reader; the policies never look inside a name.
_ENDINGS: dict[Kind, tuple[str, ...]] = {
    "person": ("en", "is", "ar"),
    "film": ("ora", "ima"),
    "book": ("iad", "une"),
    "company": ("ex", "orp"),
    "city": ("burg", "holm"),
    "river": ("wash", "flow"),
    "country": ("land", "stan"),
}


@dataclass(frozen=True)
class Question:
    """A question with its gold answer.

    Attributes:
        query: what is asked.
        answers: the names on the way; the last one is the gold answer.
    """

    query: Query
    answers: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.query.text

    @property
    def answer(self) -> str:
        return self.answers[-1]

    @property
    def data_source(self) -> str:
        return "world_single" if self.query.hops == 1 else "world_two_hop"


class World:
    """Entities by kind and the facts that hold between them.

    Build one with `World.build`. The same arguments give the same world, on any machine.
    """

    def __init__(self, seed: int, entities: dict[Kind, list[str]], facts: dict[tuple[str, str], str]):
        self.seed = seed
        self.entities = entities
        self.facts = facts
        self.kind_of = {name.lower(): kind for kind, names in entities.items() for name in names}
        self._spelling = {name.lower(): name for names in entities.values() for name in names}

    @classmethod
    def build(cls, seed: int, variant: int = 0) -> "World":
        """Build a world.

        Args:
            seed: names and facts follow from it.
            variant: another set of facts about the same names. Variant 0 is the world that questions are asked
                about; what a policy sees in other variants teaches it the language but not one fact.
        """
        entities = _invent_names(random.Random(f"names {seed}"))
        return cls(seed, entities, _invent_facts(random.Random(f"facts {seed} {variant}"), entities))

    def resolve(self, query: Query) -> tuple[str, ...] | None:
        """The names that `query` leads to, hop by hop, or None where it asks about an entity of the wrong kind."""
        names: list[str] = []
        subject = self._spelling.get(query.subject.lower())
        for relation in query.path:
            subject = self.facts.get((relation.name, subject)) if subject else None
            if subject is None:
                return None
            names.append(subject)
        return tuple(names)

    @cached_property
    def questions(self) -> list[Question]:
        """Every question that has an answer other than an entity that it names, in a fixed order."""
        found = []
        for path in PATHS:
            for name in self.entities[path[0].subject]:
                query = Query(path, name)
                answers = self.resolve(query)
                if answers and answers[-1] != name:
                    found.append(Question(query, answers))
        return found

    def split(self, train: int, validation: int) -> tuple[list[Question], list[Question]]:
        """Draw disjoint training and validation questions, each half single-hop and half two-hop.

        Raises:
            ValueError: the world has not that many questions.
        """
        shuffled = random.Random(f"split {self.seed}").sample(self.questions, len(self.questions))
        parts: tuple[list[Question], list[Question]] = ([], [])
        for hops in (1, 2):
            pool = [question for question in shuffled if question.query.hops == hops]
            sizes = [(size + 2 - hops) // 2 for size in (validation, train)]
            if sum(sizes) > len(pool):
                raise ValueError(
                    f"The world has {len(pool)} questions of {hops} hop(s), but {sum(sizes)} are asked for: "
                    f"ask for at most {2 * len(pool)} training and validation questions together."
                )
            parts[1].extend(pool[: sizes[0]])
            parts[0].extend(pool[sizes[0] : sum(sizes)])
        for number, part in enumerate(parts):
            random.Random(f"order {self.seed} {number}").shuffle(part)
        return parts

    def write_parquet(self, directory: Path, train: int = 1024, validation: int = 128) -> tuple[Path, Path]:
        """Write `train.parquet` and `validation.parquet` in verl's columns; the same call writes the same bytes."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = directory / "train.parquet", directory / "validation.parquet"
        for path, part in zip(paths, self.split(train, validation), strict=True):
            examples = [
                Example(f"{path.stem}_{number}", question.text, (question.answer,), question.data_source)
                for number, question in enumerate(part)
            ]
            write_examples(path, examples, path.stem)
        return paths


def _invent_names(rng: random.Random) -> dict[Kind, list[str]]:
    stems = ["".join(parts) for parts in itertools.product(_ONSETS, _VOWELS, _MIDDLES)]
    rng.shuffle(stems)
    remaining = iter(stems)  # each stem names one entity, so no two names look alike
    return {
        kind: [next(remaining) + rng.choice(_ENDINGS[kind]) for _ in range(size)] for kind, size in POPULATION.items()
    }


def _invent_facts(rng: random.Random, entities: dict[Kind, list[str]]) -> dict[tuple[str, str], str]:
    facts = {}
    for relation in RELATIONS:
        objects = entities[relation.object]
        if relation.name == "spouse":
            people = rng.sample(objects, len(objects))
            for one, other in zip(people[::2], people[1::2], strict=True):
                facts["spouse", one], facts["spouse", other] = other, one
            continue
        for name in entities[relation.subject]:
            facts[relation.name, name] = rng.choice(objects)
    return facts
