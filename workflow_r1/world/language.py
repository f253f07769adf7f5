"""The small language of the closed world: kinds of entities, relations, and how questions are asked.

Every relation has a question ("who directed {} ?") and a noun phrase ("the director of {}"). A
two-hop question is the second relation's question about the first relation's noun phrase:
"where was the director of Velmora born ?". Nothing here knows a fact, so a policy or a simulated
LLM may read a question without knowing its answer.
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["person", "film", "book", "company", "city", "river", "country"]


@dataclass(frozen=True)
class Relation:
    """A function from entities of one kind to entities of another.

    Attributes:
        question: asks for the object, `{}` stands for the subject.
        phrase: names the object, `{}` stands for the subject.
    """

    name: str
    subject: Kind
    object: Kind
    question: str
    phrase: str


RELATIONS = (
    Relation("director", "film", "person", "who directed {} ?", "the director of {}"),
    Relation("setting", "film", "city", "where is {} set ?", "the setting of {}"),
    Relation("author", "book", "person", "who wrote {} ?", "the author of {}"),
    Relation("founder", "company", "person", "who founded {} ?", "the founder of {}"),
    Relation("seat", "company", "city", "where is {} based ?", "the seat of {}"),
    Relation("birthplace", "person", "city", "where was {} born ?", "the birthplace of {}"),
    Relation("spouse", "person", "person", "who is {} married to ?", "the spouse of {}"),
    Relation("mayor", "city", "person", "who is the mayor of {} ?", "the mayor of {}"),
    Relation("river", "city", "river", "which river runs through {} ?", "the river of {}"),
    Relation("country", "city", "country", "which country is {} in ?", "the country of {}"),
)

PATHS: tuple[tuple[Relation, ...], ...] = (
    *((relation,) for relation in RELATIONS),
    # Marriage is symmetric, so the spouse of a spouse would ask for the entity in the question.
    *((a, b) for a in RELATIONS for b in RELATIONS if a.object == b.subject and not a.name == b.name == "spouse"),
)


@dataclass(frozen=True)
class Query:
    """What a question asks: follow `path` from `subject`."""

    path: tuple[Relation, ...]
    subject: str

    @property
    def text(self) -> str:
        name = self.subject
        for relation in self.path[:-1]:
            name = relation.phrase.format(name)
        return self.path[-1].question.format(name)

    @property
    def hops(self) -> int:
        return len(self.path)

    @property
    def answer_kind(self) -> Kind:
        return self.path[-1].object


def _pattern(path: tuple[Relation, ...]) -> re.Pattern[str]:
    words = re.escape(Query(path, "SUBJECT").text).replace(r"\ ", r"\s+").replace(r"\s+\?", r"\s*\?")
    return re.compile(r"\b" + words.replace("SUBJECT", r"(?P<subject>\w+)"), re.IGNORECASE)


_PATTERNS = [(path, _pattern(path)) for path in PATHS]


def find_queries(text: str) -> list[Query]:
    """Every question of the world's language that `text` contains, in the order of the text."""
    found = [
        (match.start(), Query(path, match["subject"]))
        for path, pattern in _PATTERNS
        for match in pattern.finditer(text)
    ]
    return [query for _, query in sorted(found, key=lambda item: item[0])]


def parse_query(text: str) -> Query | None:
    """Read `text` as one question, or return None where it is not exactly that."""
    for path, pattern in _PATTERNS:
        if match := pattern.fullmatch(text.strip()):
            return Query(path, match["subject"])
    return None
