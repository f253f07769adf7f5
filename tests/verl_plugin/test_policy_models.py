"""The session on chat templates of every kind, through two turns.

What was sampled stays as it was sampled, and around it stands what the chat template writes.
"""

import pytest
from support.chat_templates import CHATML, KINDS, ONE_TURN, WITHOUT_SYSTEM, tokenizer_of
from support.policy_models import (
    ANSWER,
    CALL,
    OBSERVATION,
    assert_every_end_of_a_turn_is_known,
    assert_two_turns_as_the_template_writes_them,
    session_on,
    usable,
)
from support.sessions import play
from tokenizers import Regex, decoders, normalizers

from workflow_r1.policy.chat_format import PLAIN_TEMPLATE, ChatFormatError, usable_template
from workflow_r1.policy.tokenizer import lost_text_note


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_chat_template_carries_two_turns(kind: str):
    tokenizer = usable(tokenizer_of(KINDS[kind]))
    await assert_two_turns_as_the_template_writes_them(
        tokenizer,
        blank=" " if kind == "blanks around turns" else "",
        opened={
            "opens the thought": "<think>\n",
            "empty thought in marks of its own": "<|channel>thought\n<channel|>",
        }.get(kind, ""),
        same_ids=kind != "text alone",
    )
    await assert_every_end_of_a_turn_is_known(tokenizer)


def test_a_model_without_a_template_gets_the_plain_one_and_one_without_a_system_role_a_folded_one():
    assert usable_template(tokenizer_of(KINDS["base, without a template"])) == PLAIN_TEMPLATE
    folded = usable_template(tokenizer_of(KINDS["no system role"]))
    assert folded is not None
    assert folded.endswith(WITHOUT_SYSTEM.strip())
    assert [kind for kind in KINDS if usable_template(tokenizer_of(KINDS[kind]))] == [
        "no system role",
        "system prompt moves",
        "base, without a template",
    ]


async def test_a_policy_that_opens_the_thought_again_is_read_as_it_means():
    tokenizer = tokenizer_of(KINDS["opens the thought"])
    session, _ = await session_on(tokenizer, [CALL])
    assert (await session.take_turn(1)).text == CALL


async def test_protocol_tags_that_the_vocabulary_holds_as_special_tokens_are_read():
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.add_tokens(["<think>", "</think>", "</tool>", "</answer>"], special_tokens=True)
    session, server = await session_on(tokenizer, [CALL, ANSWER])
    turns = await play(session, [OBSERVATION])
    assert [turn.text for turn in turns] == [CALL, ANSWER]
    assert server.requests[0]["skip_special_tokens"] is False


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chat_template": "{{ messages[-1].content }}"}, "does not show the system prompt and the question"),
        ({"chat_template": CHATML.replace("message.content", "message.content | tojson")}, "does not show the system"),
        ({"chat_template": CHATML.replace("message.content", "message.content.replace('/think', '')")}, "not show"),
        ({"chat_template": CHATML + "{{ undefined.attribute.of }}"}, "cannot render a system prompt and a question"),
        ({"chat_template": "{% for"}, "cannot render a system prompt and a question"),
        ({"chat_template": CHATML.replace("assistant\n", "assistant\n[THINK]")}, r"opens a turn with '\[THINK\]'"),
        ({"chat_template": ONE_TURN}, r"cannot render two turns with an observation after each \(One turn only"),
        ({"chat_template": {"rag": CHATML, "tool_use": CHATML}}, r"several chat templates \(rag, tool_use\) and none"),
        ({"eos_token": None}, "names no eos_token: set one in tokenizer_config.json"),
    ],
)
def test_a_model_that_cannot_carry_two_turns_says_why(change: dict, reason: str):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    for name, value in change.items():
        setattr(tokenizer, name, value)
    with pytest.raises(ChatFormatError, match=reason):
        usable_template(tokenizer)


@pytest.mark.parametrize("opening", ["<seed:think>", "<thinking>", "<|think|>", "[THINK]\n", "<reasoning>", "◁think▷"])
def test_a_prompt_that_opens_other_thoughts_is_refused_with_what_to_do(opening: str):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\n" + opening)
    with pytest.raises(ChatFormatError, match=r"take that opening out .*, or write <think> in its place"):
        usable_template(tokenizer)


@pytest.mark.parametrize("thought", ["<seed:think>\n</seed:think>\n\n", "[THINK][/THINK]", "<think>\n\n</think>\n\n"])
def test_an_empty_thought_opens_nothing(thought: str):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\n" + thought)
    assert usable_template(tokenizer) is None


@pytest.mark.parametrize("refusal", [ONE_TURN.partition("{% endif %}")[0] + "{% endif %}" + CHATML, CHATML])
@pytest.mark.parametrize(
    "message", ["One\\n\\ntwo\\r\\n three.", "\\u001b[31mOne\\u0007 two three", "One two three" * 99, ""]
)
def test_what_a_template_raises_is_one_short_line(refusal: str, message: str):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    raising = f"{{{{ raise_exception('{message}') }}}}"
    tokenizer.chat_template = refusal.replace("{{ raise_exception('One turn only') }}", raising)
    if refusal == CHATML:
        tokenizer.chat_template += raising
    with pytest.raises(ChatFormatError) as error:
        usable_template(tokenizer)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400
    assert ("One two three" if message else "TemplateError") in str(error.value).replace("[31m", "")


@pytest.mark.parametrize("lost", ["2", "Z", "~", "<", "\n", "  ", "    ", "</think>", "a"])
def test_a_tokenizer_that_loses_ascii_text_or_its_white_space_is_refused(lost: str):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(lost, " " if lost.isspace() else "")
    with pytest.raises(ChatFormatError, match=r"does not give a text back: .* becomes"):
        usable_template(tokenizer)


def test_an_accent_that_becomes_a_character_of_its_own_is_not_lost():
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFD()
    assert lost_text_note(tokenizer) is None


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("[ář]", "accented letters as written ('arie Dvořák"),
        (
            "[^[:ascii:]]",
            "accented letters, Chinese, Japanese, Korean, Cyrillic, Greek, Arabic, Hebrew, Hindi, Thai, ",
        ),
        ("\\p{Hangul}", "Korean as written ("),
        ("\\p{Emoji_Presentation}", "emoji as written ("),
        ("[“”]", "typographic marks as written ("),
        ("\t", "tabs as written ("),
    ],
)
def test_a_vocabulary_without_a_script_is_a_policy_and_what_it_loses_is_named(lost: str, named: str):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    assert lost_text_note(tokenizer) is None
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(lost), "")
    assert usable_template(tokenizer) is None
    note = lost_text_note(tokenizer)
    assert note is not None
    assert note.startswith(f"The policy's tokenizer does not give back {named}")
    assert note.isprintable()


@pytest.mark.parametrize(
    "decoder", [decoders.Metaspace(), decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1_000, 0)])]
)
def test_a_tokenizer_that_does_not_give_a_text_back_is_refused(decoder: decoders.Decoder):
    tokenizer = tokenizer_of(KINDS["ChatML"])
    tokenizer.backend_tokenizer.decoder = decoder
    if decoder.__class__ is decoders.Metaspace:
        with pytest.raises(ChatFormatError, match=r"does not give a text back: .* PreTrainedTokenizerFast"):
            usable_template(tokenizer)
    else:  # white space around a turn is free
        assert usable_template(tokenizer) is None
