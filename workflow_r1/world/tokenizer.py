"""A byte-level BPE tokenizer in which every word of the closed world is one token.

Whole words make sequences short, and copying a name means repeating one token, which is what a model of a million
parameters learns within minutes. Any other text still encodes, down to bytes, and decodes back exactly.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from workflow_r1.protocol import TAGS

PAD, MESSAGE_START, MESSAGE_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# The fields of operator inputs; like the protocol's tags they are text, only cheaper.
FIELD_TAGS = ("query", "question", "solution", "feedback", "task", "instruction")

# A capitalised word never takes a neighbouring space, everything else takes those that it can. So a name is the same
# token wherever it stands: in a question, at the start of an answer, after a bracket.
_PIECES = r"\p{Lu}\p{L}*| ?\p{Ll}+ ?| ?\p{N} ?| ?[^\s\p{L}\p{N}]+ ?|\n|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool>{{ call.function.name }}: {{ call.function.arguments }}</tool>"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer in which every word of `texts`, every tag and every chat marker is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tags = [f"<{slash}{name}>" for name in (*TAGS, *FIELD_TAGS) for slash in ("", "/")]
    tokenizer.add_special_tokens([PAD, MESSAGE_START, MESSAGE_END])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    trainer = trainers.BpeTrainer(
        vocab_size=1_000_000,  # merge on until each word is whole
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[PAD, MESSAGE_START, MESSAGE_END],
    )
    tokenizer.train_from_iterator(sorted({*texts, "\n", "system\n", "user\n", "assistant\n", "tool\n"}), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=MESSAGE_END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
