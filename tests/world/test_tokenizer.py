"""The tokenizer and its chat template."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from workflow_r1.protocol import TAGS
from workflow_r1.world.demonstrations import Demonstration
from workflow_r1.world.tiny_policy import vocabulary
from workflow_r1.world.tokenizer import FIELD_TAGS, build_tokenizer
from workflow_r1.world.world import World


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_the_same_world_gives_the_same_tokenizer(world: World, demonstrations: list[Demonstration]) -> None:
    words = vocabulary(world, demonstrations)
    once, again = build_tokenizer(words), build_tokenizer(sorted(words, reverse=True))
    assert once.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()


def test_every_name_and_tag_is_one_token_wherever_it_stands(tokenizer: PreTrainedTokenizerBase, world: World) -> None:
    for name in (name for names in world.entities.values() for name in names):
        (token,) = encode(tokenizer, name)
        for text in (f"who wrote {name} ?", f"<info>{name}</info>", f"[Answer 1] {name}\n"):
            assert token in encode(tokenizer, text)
    for tag in (*TAGS, *FIELD_TAGS):
        assert len(encode(tokenizer, f"<{tag}></{tag}>")) == 2


def test_every_question_word_is_one_token(tokenizer: PreTrainedTokenizerBase, world: World) -> None:
    for question in world.questions:
        assert len(encode(tokenizer, question.text)) == len(question.text.split())


def test_protocol_tags_survive_decoding_without_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    turn = "<think>ask</think><tool>AnswerGenerate: who wrote it ?</tool>"
    assert tokenizer.decode(encode(tokenizer, turn + "<|im_end|>"), skip_special_tokens=True) == turn


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_encodes_and_decodes_back_exactly(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_the_chat_template_renders_every_role_and_only_appends(tokenizer: PreTrainedTokenizerBase) -> None:
    call = {"type": "function", "function": {"name": "AnswerGenerate", "arguments": "who wrote it ?"}}
    messages = [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "who wrote it ?"},
        {"role": "assistant", "content": "<think>ask</think>", "tool_calls": [call]},
        {"role": "tool", "content": "<info>Tolen</info>"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nrules<|im_end|>\n"
        "<|im_start|>user\nwho wrote it ?<|im_end|>\n"
        "<|im_start|>assistant\n<think>ask</think><tool>AnswerGenerate: who wrote it ?</tool><|im_end|>\n"
        "<|im_start|>tool\n<info>Tolen</info><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    rendered = [
        tokenizer.apply_chat_template(messages[:count], return_dict=False) for count in range(1, len(messages) + 1)
    ]
    for shorter, longer in pairwise(rendered):
        assert longer[: len(shorter)] == shorter
