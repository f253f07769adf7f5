"""How long questions and answers are in tokens."""

from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median
from typing import Any

from workflow_r1.data.errors import DataError
from workflow_r1.data.examples import Example

Lengths = dict[str, int]


def load_tokenizer(name_or_path: str) -> Any:
    """A Hugging Face tokenizer.

    Raises:
        DataError: there is none of this name.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"The tokenizer {name_or_path!r} could not be loaded: {reason}") from None


def token_lengths(examples: Sequence[Example], tokenizer: Any) -> dict[str, Lengths]:
    """`min`, `median`, `p99` and `max` of each `question` and of each gold `answer`."""
    questions = (example.question for example in examples)
    answers = (gold for example in examples for gold in example.golds)
    return {
        "question": _summary(count_tokens(questions, tokenizer)),
        "answer": _summary(count_tokens(answers, tokenizer)),
    }


def count_tokens(texts: Iterator[str], tokenizer: Any) -> list[int]:
    """The tokens of each text, whose special tokens it already holds."""
    counts: list[int] = []
    while batch := list(islice(texts, 512)):
        counts.extend(len(ids) for ids in tokenizer(batch, add_special_tokens=False)["input_ids"])
    return counts


def _summary(counts: list[int]) -> Lengths:
    ranked = sorted(counts)
    return {
        "min": ranked[0],
        "median": round(median(ranked)),
        "p99": ranked[round(0.99 * (len(ranked) - 1))],
        "max": ranked[-1],
    }
