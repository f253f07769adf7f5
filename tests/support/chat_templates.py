"""Chat templates of the kinds that models come with, short, over the small tokenizer of `qwen_like_tokenizer`."""

import copy
import json
from pathlib import Path
from typing import NamedTuple

from support.qwen_like_tokenizer import qwen_like_tokenizer
from transformers import PreTrainedTokenizerBase

CHATML = """
{%- for message in messages %}{{ "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}{% endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}
"""

# Gemma: roles alternate, there is none for tools, and the system prompt is part of the question.
ALTERNATING = """
{{- bos_token }}
{%- if messages[0].role == "system" %}
{%- set prefix, rest = messages[0].content + "\n\n", messages[1:] %}
{%- else %}
{%- set prefix, rest = "", messages %}
{%- endif %}
{%- for message in rest %}
{%- if (message.role == "user") != (loop.index0 % 2 == 0) %}{{ raise_exception("Roles must alternate") }}{% endif %}
{{- "<start_of_turn>" + ("model" if message.role == "assistant" else message.role) + "\n" }}
{{- (prefix if loop.first else "") + message.content | trim + "<end_of_turn>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<start_of_turn>model\n" }}{% endif %}
"""

# The first Gemmas: the system role is refused.
WITHOUT_SYSTEM = """
{%- if messages[0].role == "system" %}{{ raise_exception("System role not supported") }}{% endif %}
""" + ALTERNATING.lstrip()

# Mistral's third: the system prompt is part of the last message of the user, whichever that is.
MOVES_SYSTEM = """
{{- bos_token }}
{%- set has_system = messages[0].role == "system" %}
{%- set rest = messages[1:] if has_system else messages %}
{%- for message in rest %}
{%- if message.role == "tool" %}{{ raise_exception("No tools") }}{% endif %}
{%- if message.role == "assistant" %}{{ message.content + eos_token }}
{%- else %}
{{- "[INST]" + (messages[0].content + "\n\n" if loop.last and has_system else "") + message.content + "[/INST]" }}
{%- endif %}
{%- endfor %}
"""

# Mistral: what a tool returns needs the id of a call, nine characters long, and is shown as JSON.
CALL_IDS = """
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == "system" %}{{ "[SYSTEM_PROMPT]" + message.content + "[/SYSTEM_PROMPT]" }}
{%- elif message.role == "user" %}{{ "[INST]" + message.content + "[/INST]" }}
{%- elif message.role == "assistant" %}{{ message.content + eos_token }}
{%- else %}
{%- if message.tool_call_id | default("") | length != 9 %}{{ raise_exception("Call ids have 9 characters") }}{% endif %}
{{- "[TOOL_RESULTS]" + message.content | tojson + "[/TOOL_RESULTS]" }}
{%- endif %}
{%- endfor %}
"""

# Qwen3: earlier thoughts are dropped.
DROPS_THOUGHTS = """
{%- for message in messages %}
{{- "<|im_start|>" + message.role + "\n" }}
{{- message.content.split("</think>")[-1] if message.role == "assistant" else message.content }}
{{- "<|im_end|>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}
"""

# Qwen3-Thinking, DeepSeek-R1: and the generation prompt opens the thought.
OPENS_THOUGHT = DROPS_THOUGHTS.replace("assistant\n", "assistant\n<think>\n")

# Llama 3 as it first came: the generation prompt is always there.
ALWAYS_GENERATES = CHATML.replace("{%- if add_generation_prompt %}", "").replace("{% endif %}", "")

# gpt-oss: the template writes a channel before a turn that its generation prompt leaves to the model, and closes the
# last turn of a conversation in another way.
CHANNELS = """
{%- for message in messages %}
{%- if message.role == "tool" %}{{ raise_exception("No tool call to answer") }}
{%- elif message.role == "assistant" %}
{{- "<|start|>assistant<|channel|>final<|message|>" + message.content }}
{{- "<|return|>" if loop.last and not add_generation_prompt else "<|end|>" }}
{%- else %}{{ "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|start|>assistant" }}{% endif %}
"""

# GLM: a turn ends where the next message's role begins.
UNCLOSED = """
{{- "[gMASK]<sop>" }}
{%- for message in messages %}{{ "<|" + message.role + "|>\n" + message.content }}{% endfor %}
{%- if add_generation_prompt %}{{ "<|assistant|>\n" }}{% endif %}
"""

# DeepSeek: the second tool message is not shown as the first one is, and no generation prompt follows it.
COUNTS_TOOL_MESSAGES = """
{{- bos_token }}
{%- set seen = namespace(tools=0) %}
{%- for message in messages %}
{%- if message.role == "tool" %}
{%- set seen.tools = seen.tools + 1 %}
{{- ("<|outputs|>" if seen.tools == 1 else "\n") + "<|output|>" + message.content }}
{%- elif message.role == "assistant" %}{{ "<|Assistant|>" + message.content + eos_token }}
{%- elif message.role == "user" %}{{ "<|User|>" + message.content }}
{%- else %}{{ message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and messages[-1].role != "tool" %}{{ "<|Assistant|>" }}{% endif %}
"""

# Llama 2: blanks around a turn, and each exchange between its own marks of a sequence.
BLANKS = """
{%- if messages[0].role == "system" %}
{%- set first, rest = "<<SYS>>\n" + messages[0].content + "\n<</SYS>>\n\n", messages[1:] %}
{%- else %}
{%- set first, rest = "", messages %}
{%- endif %}
{%- for message in rest %}
{%- if (message.role == "user") != (loop.index0 % 2 == 0) %}{{ raise_exception("Roles must alternate") }}{% endif %}
{%- if message.role == "user" %}
{{- bos_token + "[INST] " + (first if loop.first else "") + message.content + " [/INST]" }}
{%- else %}{{ " " + message.content + " " + eos_token }}
{%- endif %}
{%- endfor %}
"""

# MiniMax, Yi and others without a generation prompt of their own.
NEVER_GENERATES = """
{%- for message in messages %}{{ "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}{% endfor %}
"""

# Falcon's older ones and others for one question.
ONE_TURN = (
    "{% if messages | selectattr('role', 'equalto', 'assistant') | list | length > 1 %}"
    "{{ raise_exception('One turn only') }}{% endif %}"
) + CHATML

# Alpaca: text alone, no token closes a turn.
TEXT_ALONE = """
{%- for message in messages %}
{%- if message.role == "assistant" %}{{ "### Response:\n" + message.content + "\n\n" }}
{%- elif message.role == "system" %}{{ message.content + "\n\n" }}
{%- elif message.role == "user" %}{{ "### Instruction:\n" + message.content + "\n\n" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "### Response:\n" }}{% endif %}
"""


class Kind(NamedTuple):
    """A kind of chat template, and what sets its tokenizer apart.

    Attributes:
        end: the token that ends a sequence.
        tokens: the others that it is written with.
    """

    template: str | None
    end: str = "<|im_end|>"
    tokens: tuple[str, ...] = ()


KINDS = {
    "ChatML": Kind(CHATML),
    "alternating": Kind(ALTERNATING, "<end_of_turn>", ("<start_of_turn>",)),
    "alternating, another end of sequence": Kind(ALTERNATING, "<|endoftext|>", ("<start_of_turn>", "<end_of_turn>")),
    "no system role": Kind(WITHOUT_SYSTEM, "<end_of_turn>", ("<start_of_turn>",)),
    "call ids": Kind(CALL_IDS, "</s>", ("[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")),
    "system prompt moves": Kind(MOVES_SYSTEM, "</s>", ("[INST]", "[/INST]")),
    "empty thought in marks of its own": Kind(
        CHATML.replace("assistant\n", "assistant\n<|channel>thought\n<channel|>"), tokens=("<|channel>", "<channel|>")
    ),
    "base, with ChatML": Kind(CHATML, "<|endoftext|>", ("<|im_end|>",)),
    "base, without a template": Kind(None, "<|endoftext|>"),
    "opens the thought": Kind(OPENS_THOUGHT),
    "drops thoughts": Kind(DROPS_THOUGHTS),
    "always a generation prompt": Kind(ALWAYS_GENERATES),
    "never a generation prompt": Kind(NEVER_GENERATES),
    "channels": Kind(CHANNELS, "<|return|>", ("<|start|>", "<|end|>", "<|channel|>", "<|message|>")),
    "unclosed turns": Kind(UNCLOSED, "<|endoftext|>", ("<|user|>", "<|assistant|>", "<|tool|>", "[gMASK]", "<sop>")),
    "tool messages counted": Kind(COUNTS_TOOL_MESSAGES, "<|eos|>", ("<|User|>", "<|Assistant|>", "<|output|>")),
    "blanks around turns": Kind(BLANKS, "</s>", ("<s>",)),
    "text alone": Kind(TEXT_ALONE, "<|endoftext|>"),
}


def tokenizer_of(kind: Kind) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(qwen_like_tokenizer())
    tokenizer.add_special_tokens({"eos_token": kind.end, "bos_token": "<|bos|>"})
    tokenizer.add_tokens(list(kind.tokens), special_tokens=False)
    tokenizer.chat_template = kind.template and kind.template.strip()
    return tokenizer


def needs_code(folder: Path) -> None:
    """Make `folder` a model whose tokenizer is a class in a file beside it."""
    tokenizer_of(KINDS["ChatML"]).save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    (folder / "own.py").write_text(
        "import transformers\n\n\nclass Own(transformers.PreTrainedTokenizerFast):\n    pass\n"
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
