"""How a model's chat template lays a trajectory out in tokens, read off the template before anything is sampled.

A chat template is a program of the model's makers. It may refuse a role, drop a message, rewrite earlier turns or open
a turn by itself, and a template that raises in mid-rollout costs the trajectory. So it is asked once, with a
conversation of two turns, and what it puts around an observation is kept. A rollout renders the prompt alone; every
later token is either sampled or comes from what was kept, so nothing sampled is ever rendered or tokenised again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow_r1.errors import UserError, reason_of
from workflow_r1.policy.tokenizer import TokenizerError, check_tokenizer
from workflow_r1.protocol import TAGS

PLAIN_TEMPLATE = Path(__file__).with_name("plain_chat.jinja").read_text(encoding="utf-8").strip()
"""For base models without a template of their own: `User:` and `Assistant:`, a turn closed by end-of-sequence."""

# Put before a template that knows no system role, or keeps moving the system prompt to the last message: the question's
# message then opens with it.
_SYSTEM_INTO_QUESTION = (
    "{%- if messages | length > 1 and messages[0].role == 'system' %}{%- set messages = [{'role': messages[1].role, "
    "'content': messages[0].content + '\\n\\n' + messages[1].content}] + messages[2:] %}{%- endif %}"
)

# Words that no template writes by itself, with what a template might escape, trim or take for a switch of its own.
_SYSTEM = "wfsystem: <think> </think>\n<tool> </tool>\n\n<answer> </answer>"
_QUESTION, _TURN = 'wf "question"?', "wfturn"
_OBSERVATION = '<info>wf "observation"\n\n\\ </info>'
_OPENED_THOUGHT = re.compile(r"<think>\s*\Z")
_ANY_THOUGHT = re.compile(r"</?think>")
# An empty thought in a model's own marks, such as Gemma 4's <|channel>thought<channel|>: it opens nothing.
_CLOSED_THOUGHT = re.compile(r"[<\[]\W*(?:START_?)?(\w[\w:.-]*)\W*[>\]].*[<\[]\W*(?:END_?)?\1\W*[>\]]", re.DOTALL)
_PROTOCOL_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")


class ChatFormatError(UserError):
    """Why a model cannot be a policy: a clause that goes on from "The model ... cannot be a policy: "."""


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer and what its chat template puts around a trajectory's parts.

    Attributes:
        tokenizer: the policy's, a fast one of transformers.
        template_arguments: handed to its `apply_chat_template` with every prompt.
        observation_role: `tool`, or `user` where the template does not show tool messages as they were written, and
            each of them in the same way.
        before_observation: what stands between a turn's last character and an observation: the turn's close, and the
            head of the message.
        after_observation: what stands between the observation and the next sampled token.
        turn_head: what the template puts before a turn beyond its own generation prompt, such as gpt-oss's channel.
        openings: what the generation prompt writes of the first turn, and of a later one: `<think>` or nothing.
    """

    tokenizer: Any
    template_arguments: Mapping[str, Any]
    observation_role: str
    before_observation: str
    after_observation: str
    turn_head: str
    openings: tuple[str, str]

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of the messages that a trajectory starts from, up to where the policy goes on."""
        return self._encode(self.prompt_text(messages))

    def prompt_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of those tokens."""
        return _render(self.tokenizer, list(messages), self.template_arguments) + self.turn_head

    def observation_ids(self, last_id: int, observation: str) -> list[int]:
        """The tokens from the end of a turn to the start of the next one, with an observation between them.

        Args:
            last_id: the last sampled token. Where it closes the turn as the template does, it is not closed again.
        """
        ids = self._encode_after_text(self.before_observation + observation + self.after_observation)
        if self.closing_ids and last_id == self.closing_ids[-1]:
            return ids[len(self.closing_ids) :]
        return ids

    @cached_property
    def closing_ids(self) -> list[int]:
        """The tokens with which the template closes a turn, up to its first control token; none if it has no such."""
        ids = self._encode_after_text(self.before_observation)
        controls = set(self.tokenizer.added_tokens_decoder) | {self.tokenizer.eos_token_id}
        first = next((i for i, token in enumerate(ids) if token in controls and self._spells(token)), None)
        return [] if first is None else ids[: first + 1]

    @cached_property
    def end_ids(self) -> list[int]:
        """The tokens at which sampling stops: the template's close of a turn, and the end of a sequence.

        They differ in base models, and then the policy may use either.
        """
        return sorted({*self.closing_ids[-1:], self.tokenizer.eos_token_id})

    def text(self, ids: Sequence[int]) -> str:
        """What sampled tokens say, without the control tokens among them; a protocol tag is none, whatever it is."""
        kept = [token for token in ids if token not in self._unread]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @cached_property
    def _unread(self) -> set[int]:
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        ids = special | set(self.tokenizer.all_special_ids) | set(self.end_ids)
        return {id for id in ids if not _PROTOCOL_TAG.search(self._spells(id))}

    def _spells(self, token: int) -> str:
        """A token's text without white space: some vocabularies hold runs of blanks as tokens of their own."""
        return self.tokenizer.decode([token], skip_special_tokens=False).strip()

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _encode_after_text(self, text: str) -> list[int]:
        """Of a text that goes on from other text: some tokenizers put a blank before what they take for a start."""
        word = self._encode("a")
        ids = self._encode("a" + text)
        return ids[len(word) :] if ids[: len(word)] == word else self._encode(text)


def read_chat_format(tokenizer: Any, template_arguments: Mapping[str, Any] | None = None) -> ChatFormat:
    """Read a tokenizer's chat template by rendering two turns with an observation after each.

    Args:
        template_arguments: of `apply_chat_template`, such as `enable_thinking`.

    Raises:
        ChatFormatError: the model cannot be a policy.
    """
    arguments = dict(template_arguments or {})
    try:
        check_tokenizer(tokenizer)
    except TokenizerError as error:
        raise ChatFormatError(str(error)) from None
    start = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _QUESTION}]
    try:
        prompt = _render(tokenizer, start, arguments)
    except Exception as error:  # a template raises whatever it likes
        raise ChatFormatError(
            f"its chat template cannot render a system prompt and a question ({reason_of(error)})"
        ) from None
    if _SYSTEM not in prompt or _QUESTION not in prompt:
        raise ChatFormatError("its chat template does not show the system prompt and the question as they are written")
    role, (before_turn, _, after_turn) = _render_two_turns(tokenizer, start, arguments)
    before, after = after_turn.split(_OBSERVATION)
    head = _turn_head(prompt, before_turn)
    return ChatFormat(
        tokenizer=tokenizer,
        template_arguments=arguments,
        observation_role=role,
        before_observation=before,
        after_observation=after + head,
        turn_head=head,
        openings=(_opening(prompt), _opening(after)),
    )


def usable_template(tokenizer: Any, template_arguments: Mapping[str, Any] | None = None) -> str | None:
    """The chat template that a model needs in place of its own to be a policy; None if its own will do.

    Raises:
        ChatFormatError: no template makes it one.
    """
    arguments = dict(template_arguments or {})
    if not tokenizer.chat_template:
        read_chat_format(tokenizer, {**arguments, "chat_template": PLAIN_TEMPLATE})
        return PLAIN_TEMPLATE
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise ChatFormatError(
            f"it has several chat templates ({', '.join(tokenizer.chat_template)}) and none named default: keep one of "
            "them in tokenizer_config.json"
        ) from None
    try:
        read_chat_format(tokenizer, arguments)
    except ChatFormatError as error:
        folding = _SYSTEM_INTO_QUESTION + template
        try:
            read_chat_format(tokenizer, {**arguments, "chat_template": folding})
        except ChatFormatError:
            raise error from None
        return folding
    return None


def _render(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], arguments: Mapping[str, Any], prompt: bool = True
) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **arguments)


def _render_two_turns(
    tokenizer: Any, start: Sequence[Mapping[str, str]], arguments: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """The role in which the template shows an observation, and what it writes before, between and after the turns."""
    reason = "it leaves them out, rewrites them, or moves the prompt to them"
    for role in ("tool", "user"):
        round_ = [{"role": "assistant", "content": _TURN}, {"role": role, "content": _OBSERVATION}]
        try:
            parts = _render(tokenizer, [*start, *round_, *round_], arguments).split(_TURN)
        except Exception as error:  # a template raises whatever it likes
            reason = reason_of(error)
            continue
        is_shown = [part.count(_OBSERVATION) for part in parts] == [0, 1, 1]
        if any(_SYSTEM in part or _QUESTION in part for part in parts[1:]):  # Mistral's: to the last user message
            continue
        # A template that counts tool messages of its own kind of call shows the second in another way than the first.
        if is_shown and (role == "user" or parts[1].startswith(parts[2].partition(_OBSERVATION)[0])):
            return role, parts
    raise ChatFormatError(f"its chat template cannot render two turns with an observation after each ({reason})")


def _opening(text: str) -> str:
    return "<think>" if _OPENED_THOUGHT.search(text) else ""


def _turn_head(prompt: str, before_turn: str) -> str:
    """What the template puts before a turn of the conversation, and its generation prompt does not end with.

    An empty thought is not part of it: the policy writes its own.
    """
    if before_turn.startswith(prompt):
        head = before_turn[len(prompt) :]
        return head if head.strip() and not _ANY_THOUGHT.search(head) else ""
    differ = (i for i, (one, other) in enumerate(zip(prompt, before_turn, strict=False)) if one != other)
    opened = prompt[next(differ, len(before_turn)) :].strip()
    if opened and not _ANY_THOUGHT.search(opened) and not _CLOSED_THOUGHT.fullmatch(opened):
        raise ChatFormatError(
            f"its generation prompt opens a turn with {opened[:40]!r}, which is no <think>: take that opening out of "
            "the chat template, or write <think> in its place, in the model's folder or in "
            "actor_rollout_ref.model.custom_chat_template"
        )
    return ""
