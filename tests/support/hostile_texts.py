"""A megabyte each of what makes careless patterns take quadratic time, and everything that reads such text."""

from collections.abc import Callable
from contextlib import suppress

from support.qwen_like_tokenizer import qwen_like_tokenizer

from workflow_r1.answers import f1_score
from workflow_r1.evaluation.endpoint import Completion
from workflow_r1.evaluation.session import closed_turn
from workflow_r1.observation import ObservationFilter
from workflow_r1.operators.builtin import Revise, ScEnsemble
from workflow_r1.operators.reply import extract_tag
from workflow_r1.operators.spec import OperatorInputError
from workflow_r1.protocol import neutralise, parse_turn

SIZE = 1_000_000


def _repeat(text: str) -> str:
    return text * (SIZE // len(text))


THINK = "<think>t</think>"
HOSTILE_TEXTS = {
    "an opening bracket and blanks": "<" + " " * SIZE,
    "a closing bracket and line breaks": "</" + "\n" * SIZE,
    "brackets and blanks": _repeat("< "),
    "tags without an end": _repeat("<think "),
    "control tokens without an end": _repeat("<|"),
    "a thought without an end": "<think>" + "a" * SIZE,
    "calls without an end": THINK + _repeat("<tool>"),
    "many calls": THINK + _repeat("<tool>A: b</tool> "),
    "a long name without a colon": f"{THINK}<tool>{'a' * SIZE}</tool>",
    "a name, blanks and no colon": f"{THINK}<tool>a{' ' * SIZE}</tool>",
    "many empty answers": THINK + _repeat("<answer></answer>  "),
    "many ends of one answer": f"{THINK}<answer>{_repeat('</answer>' + chr(9))}x",
    "both actions in turns": THINK + _repeat("<tool><answer>"),
    "fields without an end": _repeat("<question>"),
    "fields whose end came before": "</question></solution>" + _repeat("<question><solution>"),
    "fields in fields": _repeat("<question><solution></question>"),
    "results without an end": _repeat("<result>"),
    "ends of results": _repeat("</result>"),
    "reasoning without an end": "<reasoning>" + _repeat("<reasoning>"),
    "labels": _repeat("[Answer 1] "),
    "articles": _repeat("a the an "),
    "blanks": " " * SIZE,
    "one word": "a" * SIZE,
}


def _read_inputs(text: str) -> None:
    for operator in (Revise, ScEnsemble):
        with suppress(OperatorInputError):
            operator.parse(text)


READERS: dict[str, Callable[[str], object]] = {
    "a turn": lambda text: parse_turn(text, max_calls=3),
    "operator output": neutralise,
    "what a policy reads": lambda text: ObservationFilter(1024, "middle", qwen_like_tokenizer())(text),
    "what an unknown policy reads": lambda text: ObservationFilter(1024, "middle")(text),
    "operator inputs": _read_inputs,
    "an operator's reply": lambda text: extract_tag(text, "result"),
    "an endpoint's turn": lambda text: closed_turn(Completion(text, "stop", None, 1, 1), max_calls=3),
    "an answer": lambda text: f1_score(text, ["gold"]),
}
