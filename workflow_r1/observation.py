"""What the policy gets to read of an operator's output: nothing that means something, and not more than a bound."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from workflow_r1.protocol import neutralise

TruncateSide = Literal["left", "right", "middle"]

Spans = list[tuple[int, int]]
"""Where each token lies in a text: `(start, end)` characters."""

# About the length of a token in English prose, and never longer than one character where words have no spaces.
_STAND_IN = re.compile(r"\s*(?:[a-zA-Z0-9]{1,4}|\S)|\s+")


@dataclass(frozen=True)
class ObservationFilter:
    """From an operator's output to what the policy reads.

    Attributes:
        max_tokens: the policy's tokens that are kept of one output.
        side: where a longer one is cut.
        tokenizer: the policy's, a fast one of transformers. None where it is not known, as behind a hosted endpoint:
            then groups of up to four letters stand in for tokens.
    """

    max_tokens: int
    side: TruncateSide
    tokenizer: Any = None

    def __call__(self, output: str) -> str:
        special = () if self.tokenizer is None else self.tokenizer.all_special_tokens
        safe = neutralise(output, special)
        return truncate(safe, self._spans(safe), self.max_tokens, self.side)

    def _spans(self, text: str) -> Spans:
        if self.tokenizer is None:
            return [match.span() for match in _STAND_IN.finditer(text)]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return encoded["offset_mapping"]


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
    head = {"left": 0, "right": max_tokens, "middle": max_tokens // 2}[side]
    tail = max_tokens - head
    start = text[: spans[head - 1][1]] if head else ""
    end = text[spans[-tail][0] :] if tail else ""
    before, after = ("" if side == "left" else "..."), ("" if side == "right" else "...")
    return f"{start}{before}(truncated){after}{end}"
