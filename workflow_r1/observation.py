"""How an operator's output becomes what the policy reads of it.

Tags and special tokens in it are defused, so that an operator cannot write into the policy's turns, and what is too
long is cut.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from workflow_r1.protocol import neutralise

TruncateSide = Literal["left", "right", "middle"]

CHARACTERS_A_TOKEN = 32  # far more than any prose has; what is longer on average is cut by its characters

Spans = list[tuple[int, int]]
"""Where each token lies in a text: `(start, end)` characters."""

# About the length of a token in English prose, and never longer than one character where words have no spaces.
_STAND_IN = re.compile(r"\s*(?:[a-zA-Z0-9]{1,4}|\S)|\s+")

# An added token that is not declared special and is ordinary text which the vocabulary holds whole: blanks, a word, a
# rule of dashes. Every other one means something.
_ORDINARY = re.compile(r"\s*(?:\w+|(\S)\1*)?\s*")
# Where the policy's tokenizer is not known: what the common chat templates are written with.
_COMMON_CONTROL_TOKENS = re.compile(
    r"<\|[^<>|]{1,40}>|<[^<>|]{1,40}\|>|<｜[^<>｜]{1,40}｜>|<</?SYS>>|\[e~\[|\]~b\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|sop|eop|unused\d+|[A-Z_]+_TOKEN|(?:start|end)_of_\w+|fim_\w+|tool_(?:call|response)s?)>"
    r"|\[/?(?:INST|TOOL_\w+|SYSTEM_PROMPT|AVAILABLE_TOOLS|THINK|ARGS|CALL_ID|g?MASK)\]"
)


@dataclass(frozen=True)
class ObservationFilter:
    """From an operator's output to what the policy reads.

    Attributes:
        max_tokens: the policy's tokens that are kept of one output, and at most `CHARACTERS_A_TOKEN` times as many
            characters.
        side: where a longer one is cut.
        tokenizer: the policy's, a fast one of transformers. None where it is not known, as behind a hosted endpoint:
            then groups of up to four letters stand in for tokens.
    """

    max_tokens: int
    side: TruncateSide
    tokenizer: Any = None

    def __call__(self, output: str) -> str:
        # A megabyte would take a tokenizer seconds, for what is cut anyway.
        text, spans = self._harmless(_cut(output, CHARACTERS_A_TOKEN * self.max_tokens, self.side))
        return truncate(text, spans, self.max_tokens, self.side)

    def _harmless(self, output: str) -> tuple[str, Spans]:
        if self.tokenizer is None:
            text = neutralise(output, set(_COMMON_CONTROL_TOKENS.findall(output)))
            return text, [match.span() for match in _STAND_IN.finditer(text)]
        text, control = neutralise(output, [self.tokenizer.unk_token or ""]), _control_ids(self.tokenizer)
        while True:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, spans = encoded["input_ids"], encoded["offset_mapping"]
            # Where the tokenizer itself sees a control token, however it is written. Taking one apart can make another
            # of what it overlapped with.
            disarmed = _disarmed(text, [span for token, span in zip(ids, spans, strict=True) if token in control])
            if disarmed == text:
                return text, spans
            text = disarmed


@lru_cache(maxsize=4)
def _control_ids(tokenizer: Any) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    control = {id for id, token in added if token.special or not _ORDINARY.fullmatch(token.content)}
    # What the vocabulary lacks is no control token, though it is read as one.
    return frozenset((control | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id})


def _disarmed(text: str, spans: Spans) -> str:
    pieces, position = [], 0
    for start, end in spans:
        pieces += [text[position:start], neutralise(text[start:end], [text[start:end]])]
        position = end
    return "".join([*pieces, text[position:]])


def estimated_tokens(text: str) -> int:
    """About how many tokens `text` is, where no one counts them."""
    return sum(1 for _ in _STAND_IN.finditer(text))


def truncate(text: str, spans: Spans, max_tokens: int, side: TruncateSide) -> str:
    """Cut `text` to its first (`side` right), last (left) or first and last (middle) tokens, and say that it was cut.

    Args:
        spans: of the text's tokens.
    """
    if len(spans) <= max_tokens:
        return text
    head, tail = _kept(max_tokens, side)
    return _marked(text[: spans[head - 1][1]] if head else "", text[spans[-tail][0] :] if tail else "", side)


def _cut(text: str, max_characters: int, side: TruncateSide) -> str:
    """As `truncate`, by characters."""
    if len(text) <= max_characters:
        return text
    head, tail = _kept(max_characters, side)
    return _marked(text[:head], text[len(text) - tail :], side)


def _kept(count: int, side: TruncateSide) -> tuple[int, int]:
    head = {"left": 0, "right": count, "middle": count // 2}[side]
    return head, count - head


def _marked(start: str, end: str, side: TruncateSide) -> str:
    before, after = ("" if side == "left" else "..."), ("" if side == "right" else "...")
    return f"{start}{before}(truncated){after}{end}"
