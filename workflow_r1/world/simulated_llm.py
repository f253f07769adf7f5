"""The simulated operator LLM: reads the operators' requests, and replies from a `Brain` in the form they ask for.

It recognises an operator by its declaration: the system prompt is compared and the user prompt's template is
inverted, so a reworded prompt needs no change here.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from string import Formatter, ascii_uppercase
from typing import Any

from pydantic import BaseModel, Field

from workflow_r1.operators.builtin import BUILTIN_OPERATORS
from workflow_r1.operators.spec import OperatorSpec
from workflow_r1.world.brain import Brain, Reliability
from workflow_r1.world.world import World

MODEL_NAME = "simulated-operator-llm"

_LABELLED = re.compile(r"^\[[A-Z]\]\n(.*?)(?=\n\n\[[A-Z]\]\n|\Z)", re.DOTALL | re.MULTILINE)
_ASKED_TAG = re.compile(r"<(\w+)> and </\1>")


class ChatMessage(BaseModel):
    """One message of a chat-completion request; `content` is a string or OpenAI's list of parts."""

    role: str
    content: str | list[dict[str, object]] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class CompletionRequest(BaseModel):
    """The part of OpenAI's request that the simulation reads; the rest is accepted and has no effect."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = None
    temperature: float | None = Field(default=1.0, ge=0.0, le=2.0)
    stream: bool = False


class SimulatedLLM:
    """A chat model that answers from the facts of a closed world, right at set rates.

    Args:
        world: what it knows.
        reliability: how often it is right.
        operators: the declarations that it recognises. Any other request is answered like a plain question.
    """

    def __init__(
        self,
        world: World,
        reliability: Reliability | None = None,
        operators: Sequence[OperatorSpec] = BUILTIN_OPERATORS,
    ):
        self.world = world
        self.brain = Brain(world, reliability)
        self._operators = [(spec, _inverse(spec)) for spec in operators if spec.name in _SKILLS]
        self._seen: Counter[bytes] = Counter()

    def complete(self, request: CompletionRequest, body: Mapping[str, Any]) -> list[str]:
        """The texts of the `n` choices.

        A request with a seed, or at temperature 0, has the same reply each time. Any other draws anew each time, as
        from a real model; the n-th repetition of it still has the same reply in every run.

        Args:
            body: the whole request as it came.
        """
        key = hashlib.sha256(json.dumps({**body, "n": 1}, sort_keys=True).encode()).digest()
        repetition = 0
        if request.seed is None and request.temperature != 0:
            repetition = self._seen[key]
            self._seen[key] += 1
        samples = [0 if request.temperature == 0 else index for index in range(request.n)]
        return [self.reply(request.messages, sample=key + f"{repetition} {index}".encode()) for index in samples]

    def reply(self, messages: Sequence[ChatMessage], *, sample: bytes) -> str:
        """The reply to `messages`; equal arguments give equal replies, another `sample` an independent one."""
        said = "\0".join(message.text for message in messages)
        rng = random.Random(b"%d %b %b" % (self.world.seed, sample, said.encode()))
        recognised = self._recognise(messages)
        if recognised is None:
            text = "\n".join(message.text for message in messages)
            asked = _ASKED_TAG.findall(text)
            return _in_form(self.brain.answer(text, rng), asked[-1] if asked else None)
        spec, fields = recognised
        return _in_form(_SKILLS[spec.name](self.brain, fields, rng), spec.reply_tag)

    def _recognise(self, messages: Sequence[ChatMessage]) -> tuple[OperatorSpec, Mapping[str, str]] | None:
        system = next((message.text for message in messages if message.role == "system"), "")
        user = next((message.text for message in messages if message.role == "user"), "")
        for spec, template in self._operators:
            # An endpoint's client may add a hint after the prompt: only its beginning has to fit.
            if system.startswith(spec.system) and (match := template.match(user)):
                return spec, match.groupdict()
        return None


Skill = Callable[[Brain, Mapping[str, str], random.Random], str]


def _answer(brain: Brain, fields: Mapping[str, str], rng: random.Random) -> str:
    return brain.answer(fields["question"], rng)


def _custom(brain: Brain, fields: Mapping[str, str], rng: random.Random) -> str:
    return brain.answer(f"{fields['task']}\n{fields['instruction']}", rng)


def _review(brain: Brain, fields: Mapping[str, str], rng: random.Random) -> str:
    return brain.review(fields["question"], fields["solution"], rng).text


def _revise(brain: Brain, fields: Mapping[str, str], rng: random.Random) -> str:
    return brain.revise(fields["question"], fields["solution"], fields["feedback"], rng)


def _rewrite(brain: Brain, fields: Mapping[str, str], rng: random.Random) -> str:
    return brain.rewrite(fields["query"])


def _pick(brain: Brain, fields: Mapping[str, str], rng: random.Random) -> str:
    candidates = [text.strip() for text in _LABELLED.findall(fields["solution"])]
    return ascii_uppercase[brain.pick(fields["query"], candidates, rng)]


_SKILLS: dict[str, Skill] = {
    "AnswerGenerate": _answer,
    "MultiAnswerGenerate": _answer,
    "Custom": _custom,
    "Review": _review,
    "Revise": _revise,
    "PromptOptimizer": _rewrite,
    "ScEnsemble": _pick,
}


def _inverse(spec: OperatorSpec) -> re.Pattern[str]:
    """A pattern that matches what `spec.prompt` renders, with a group for each field."""
    parts = [
        re.escape(literal) + (f"(?P<{field}>.*)" if field else "")
        for literal, field, _, _ in Formatter().parse(spec.prompt)
    ]
    return re.compile("".join(parts), re.DOTALL)


def _in_form(result: str, tag: str | None) -> str:
    if tag is None:
        return result
    return f"<reasoning>This is a simulation.</reasoning>\n<{tag}>{result}</{tag}>"
