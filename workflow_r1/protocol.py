"""The Think-Action grammar: what a policy may write in one turn, and what it reads back.

    turn        := <think> text </think> action
    action      := call+ | <answer> text </answer>
    call        := <tool> Operator: input </tool>
    observation := <info> text </info>

White space between the blocks is free, anything else outside them makes the turn malformed.
Only text that the policy generated is ever given to `parse_turn`; operator output is data, and
`neutralise` takes the meaning out of every tag in it before it enters the context.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TAGS = ("think", "tool", "answer", "info")
STOP_STRINGS = ("</tool>", "</answer>")

# Every pattern here takes linear time: no two repeats that can match the same characters stand side by side.
_NAME = f"(?:{'|'.join(TAGS)})"
# With anything behind the name, or with blanks around it; `a < tool and b > c` is a comparison.
_TAG = re.compile(rf"<(?:/?{_NAME}\b[^<>]*|\s*(?:/\s*)?{_NAME}\s*)>", re.IGNORECASE)
_CHAT_CONTROL = re.compile(r"<\|[^<>|]*\|>")
_THINK = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_CALL = re.compile(r"<tool>(?P<body>.*?)</tool>\s*", re.DOTALL)
_CALL_BODY = re.compile(r"\s*(?P<operator>[A-Za-z]\w*)\s*:(?P<input>.*)", re.DOTALL)


@dataclass(frozen=True)
class OperatorCall:
    """One `<tool>` block: the operator's name and its raw input text."""

    operator: str
    input: str


@dataclass(frozen=True)
class ParsedTurn:
    """What one turn of policy text says.

    Exactly one of `calls`, `answer` and `error` is set; `error` is a sentence that says what
    broke the grammar, and doubles as the text of the WarningOp observation.
    """

    think: str = ""
    calls: tuple[OperatorCall, ...] = ()
    answer: str | None = None
    error: str | None = None


def parse_turn(text: str, max_calls: int = 1) -> ParsedTurn:
    """Parse the text of one policy turn.

    Args:
        text: everything the policy generated in this turn, stop string included.
        max_calls: how many `<tool>` blocks a turn may hold.

    Never raises on any text: a broken turn comes back with `error` set.
    """
    opening = _THINK.match(text)
    if opening is None:
        return ParsedTurn(error="A turn starts with <think>...</think>.")
    think = opening["think"]
    if _TAG.search(think):
        return ParsedTurn(error="Only plain text belongs between <think> and </think>.")
    think, action = think.strip(), text[opening.end() :]

    if answer := _ANSWER.fullmatch(action):
        content = answer["answer"].strip()
        if _TAG.search(content):
            return ParsedTurn(think, error="Only plain text belongs between <answer> and </answer>.")
        if not content:
            return ParsedTurn(think, error="The answer is empty.")
        return ParsedTurn(think, answer=content)

    return _parse_calls(think, action, max_calls)


def _parse_calls(think: str, action: str, max_calls: int) -> ParsedTurn:
    calls, position = [], 0
    while block := _CALL.match(action, position):
        position = block.end()
        if _TAG.search(block["body"]):
            return ParsedTurn(think, error="A <tool> block holds one call and no other protocol tag.")
        body = _CALL_BODY.fullmatch(block["body"])
        if body is None or not body["input"].strip():
            return ParsedTurn(think, error="A call is written <tool>Operator: input</tool>.")
        calls.append(OperatorCall(body["operator"], body["input"].strip()))
    if not calls or position != len(action):
        return ParsedTurn(
            think,
            error="After </think> comes either <tool>Operator: input</tool> or <answer>...</answer>, and nothing else.",
        )
    if len(calls) > max_calls:
        return ParsedTurn(think, error=f"At most {max_calls} operator call(s) fit in one turn.")
    return ParsedTurn(think, calls=tuple(calls))


def neutralise(text: str, control_tokens: Iterable[str] = ()) -> str:
    """Take the meaning out of protocol tags and chat-template control tokens in foreign text.

    The angle brackets become look-alikes, so a reader still sees what was there.

    Args:
        text: operator output.
        control_tokens: the tokenizer's special tokens, for templates that do not write `<|...|>`.
    """
    for pattern in (_TAG, _CHAT_CONTROL):
        text = pattern.sub(lambda match: _disarm(match[0]), text)
    for token in control_tokens:
        if token and token in text:
            text = text.replace(token, _disarm(token))
    return text


def _disarm(token: str) -> str:
    if "<" in token:
        return token.replace("<", "‹").replace(">", "›")
    return "·".join(token) if len(token) > 1 else "·"


def render_observation(outputs: Sequence[tuple[str, str]]) -> str:
    """The `<info>` message for the outputs of one turn.

    Args:
        outputs: `(operator, text)` pairs in the order of the calls, already neutralised.
    """
    if len(outputs) == 1:
        return f"<info>{outputs[0][1]}</info>"
    parts = [f"[{number}] {operator}: {text}" for number, (operator, text) in enumerate(outputs, start=1)]
    return "<info>" + "\n".join(parts) + "</info>"


def read_observation(observation: str) -> str:
    """What stands in an `<info>` message: the inverse of `render_observation` for one output."""
    return observation.removeprefix("<info>").removesuffix("</info>")
