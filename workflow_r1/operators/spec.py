"""How an operator is declared: its input, its prompt, and what is read from the reply.

The policy's prompt, the input check and the request are all rendered from the one declaration, so
they cannot drift apart. An operator of one's own is an `OperatorSpec` in a module:

    Translate = OperatorSpec(
        name="Translate",
        use_when="a text is in a language other than English",
        inputs=(InputField(name="text"),),
        prompt="Translate into English. Write the translation between <result> and </result>.\\n\\n{text}",
        reply_tag="result",
    )
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from string import Formatter, ascii_uppercase
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workflow_r1.operators.reply import extract_tag, has_tag
from workflow_r1.protocol import TAGS, neutralise
from workflow_r1.services.request import Message, Sampling

Inputs = dict[str, list[str]]
Accept = Callable[[str], bool]
T = TypeVar("T")

_TAG = re.compile(r"<(/?\s*[A-Za-z_][^<>]*)>")


class OperatorInputError(Exception):
    """What the policy wrote does not fit the operator; the message tells the policy what to write."""


class Ask(Protocol):
    """Makes one chat completion: what an operator is given to reach the model."""

    async def __call__(self, messages: Sequence[Message], *, sample: int, hint: str, accept: Accept) -> str:
        """The model's reply to `messages`, asked again with `hint` where `accept` refuses it."""
        ...


class _Declaration(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputField(_Declaration):
    """One field of an operator's input; given more than once where `at_most` allows."""

    name: str = Field(pattern=r"^[a-z]\w*$")
    at_least: int = Field(default=1, ge=1)
    at_most: int = Field(default=1, ge=1, le=len(ascii_uppercase))


class OperatorSpec(_Declaration):
    """A typed declaration of one operator.

    Attributes:
        name: what the policy calls it.
        use_when: one line for the policy's prompt.
        inputs: one single field is written as plain text, anything else as tagged fields.
        system: the constant part of the prompt.
        prompt: the user message; `{field}` stands for an input, repeated ones as a list labelled
            [A], [B], ... Input text is inserted and never interpreted.
        reply_tag: the tag in the reply that holds the result; None takes the whole reply.
        samples: how many replies are sampled, at once; more than one are joined as `[Answer 1]`,
            `[Answer 2]`, ...
        endpoint: the name of the endpoint in the settings that serves it; by default the one that
            bears the operator's name, else the main one.
    """

    name: str = Field(pattern=r"^[A-Za-z]\w*$")
    use_when: str
    inputs: tuple[InputField, ...] = Field(min_length=1)
    system: str = ""
    prompt: str
    reply_tag: str | None = Field(default=None, pattern=r"^[a-z]\w*$")
    sampling: Sampling = Sampling()
    samples: int = Field(default=1, ge=1)
    endpoint: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "OperatorSpec":
        names = [field.name for field in self.inputs]
        if len(set(names)) != len(names):
            raise ValueError(f"operator {self.name} declares an input twice")
        if reserved := set(names) & set(TAGS):
            raise ValueError(f"operator {self.name} cannot have an input named {reserved.pop()}: it is a protocol tag")
        placeholders = {field for _, field, _, _ in Formatter().parse(self.prompt) if field is not None}
        if placeholders != set(names):
            raise ValueError(
                f"the prompt of operator {self.name} must use exactly its inputs, as {{{'}, {'.join(names)}}}"
            )
        return self

    @property
    def is_plain(self) -> bool:
        """Whether the whole input text is the one field."""
        return len(self.inputs) == 1 and self.inputs[0].at_most == 1

    @property
    def input_form(self) -> str:
        """How the policy writes the input, such as `question` or `<task>...</task><instruction>...</instruction>`."""
        if self.is_plain:
            return self.inputs[0].name
        return "".join(f"<{field.name}>...</{field.name}>" * field.at_least for field in self.inputs)

    def parse(self, text: str) -> Inputs:
        """The values of each field in the policy's input text.

        Raises:
            OperatorInputError: a field is missing, empty, or given too often.
        """
        tagged = list(_tagged_parts(text, [field.name for field in self.inputs]))
        if self.is_plain:
            name, text = self.inputs[0].name, text.strip()
            is_wrapped = text.startswith(f"<{name}>") and text.endswith(f"</{name}>") and len(tagged) == 1
            tagged = tagged if is_wrapped else [(name, text)]
        inputs: Inputs = {
            field.name: [value for name, value in tagged if name == field.name and value] for field in self.inputs
        }
        for field in self.inputs:
            self._check_count(field, len(inputs[field.name]))
        return inputs

    def fill(self, values: Mapping[str, str | Sequence[str]]) -> Inputs:
        """The values of each field, given by code; whatever they hold, they cannot write a tag of the prompt.

        Raises:
            OperatorInputError: as in `parse`, or there is no such field.
        """
        if unknown := [name for name in values if name not in {field.name for field in self.inputs}]:
            raise OperatorInputError(f"{self.name} has no input {unknown[0]}: its input is written {self.input_form}.")
        inputs: Inputs = {field.name: [] for field in self.inputs}
        for name, value in values.items():
            texts = [value] if isinstance(value, str) else value
            inputs[name] = [_TAG.sub(r"‹\1›", neutralise(text)).strip() for text in texts if text.strip()]
        for field in self.inputs:
            self._check_count(field, len(inputs[field.name]))
        return inputs

    def _check_count(self, field: InputField, count: int) -> None:
        if count < field.at_least:
            if self.is_plain:
                raise OperatorInputError(f"{self.name} needs a {field.name} as its input.")
            wanted = f"<{field.name}>" if field.at_least == 1 else f"{field.at_least} or more <{field.name}>"
            raise OperatorInputError(f"{self.name} needs {wanted}: its input is written {self.input_form}.")
        if count > field.at_most:
            raise OperatorInputError(f"{self.name} takes at most {field.at_most} <{field.name}>.")

    def messages(self, inputs: Inputs) -> list[Message]:
        """The chat messages of a request for these inputs."""
        values = {
            field.name: inputs[field.name][0] if field.at_most == 1 else _labelled(inputs[field.name])
            for field in self.inputs
        }
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return [*messages, {"role": "user", "content": self.prompt.format(**values)}]

    async def run(self, inputs: Inputs, ask: Ask) -> str:
        """Do the operator's work and return its result.

        Raises:
            OperatorEndpointError: the endpoint could not serve it.
        """
        messages = self.messages(inputs)
        results = await gather_settled([self._sample(messages, ask, sample) for sample in range(self.samples)])
        if self.samples == 1:
            return results[0]
        return "\n".join(f"[Answer {number}] {result}" for number, result in enumerate(results, start=1))

    async def _sample(self, messages: Sequence[Message], ask: Ask, sample: int) -> str:
        tag = self.reply_tag
        if tag is None:
            return (await ask(messages, sample=sample, hint="", accept=lambda reply: True)).strip()
        hint = f"Write your result between <{tag}> and </{tag}>, and nothing after it."
        reply = await ask(messages, sample=sample, hint=hint, accept=lambda reply: has_tag(reply, tag))
        return extract_tag(reply, tag)


def _tagged_parts(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The `(name, content)` of each outermost tag among `names`, in order."""
    # From behind its last closing tag on, a name opens nothing: looking for its end again and again takes for ever.
    last_closing = {name: text.rfind(f"</{name}>") for name in names}
    openings, position = re.compile(f"<({'|'.join(names)})>"), 0
    while opening := openings.search(text, position):
        name, position = opening[1], opening.end()
        if position <= last_closing[name]:
            end = text.find(f"</{name}>", position)
            yield name, text[position:end].strip()
            position = end


def _labelled(values: Sequence[str]) -> str:
    return "\n\n".join(f"[{label}]\n{value}" for label, value in zip(ascii_uppercase, values, strict=False))


async def gather_settled(work: Sequence[Awaitable[T]]) -> list[T]:
    """As `asyncio.gather`, but a failure is raised only once all have ended: nothing is left running."""
    outcomes: list[Any] = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes
