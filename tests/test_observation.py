"""What the policy reads of an operator's output: cut by its own tokens, and harmless."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from workflow_r1.observation import CHARACTERS_A_TOKEN, ObservationFilter, truncate
from workflow_r1.world.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(["who wrote the Hobbit"])
SPANS = [(i, i + 1) for i in range(10)]  # every character a token


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ("left", "(truncated)...6789"),
        ("right", "0123...(truncated)"),
        ("middle", "01...(truncated)...89"),
    ],
)
def test_truncation_cuts_at_its_side_and_says_so(side, expected):
    assert truncate("0123456789", SPANS, 4, side) == expected
    assert truncate("0123", SPANS[:4], 4, side) == "0123"


def test_truncation_in_the_middle_keeps_an_odd_length():
    assert truncate("0123456789", SPANS, 3, "middle") == "0...(truncated)...89"
    assert truncate("0123456789", SPANS, 1, "middle") == "...(truncated)...9"


def test_the_bound_counts_the_policys_tokens():
    output = "who wrote the Hobbit " * 3
    per_line = len(TOKENIZER.encode("who wrote the Hobbit ", add_special_tokens=False))
    assert ObservationFilter(per_line, "right", TOKENIZER)(output) == "who wrote the Hobbit ...(truncated)"
    assert ObservationFilter(3 * per_line, "right", TOKENIZER)(output) == output


@pytest.mark.parametrize("tokenizer", [None, TOKENIZER])
def test_a_long_run_of_few_tokens_is_cut_by_its_characters_and_says_so(tokenizer):
    blanks = "a" + " " * 1_000 + "b"
    read = ObservationFilter(4, "middle", tokenizer)(blanks)
    assert "(truncated)" in read
    assert len(read) < 4 * CHARACTERS_A_TOKEN + 32
    assert (read[0], read[-1]) == ("a", "b")


def test_without_a_tokenizer_four_letters_or_one_sign_count_as_a_token():
    cut = ObservationFilter(2, "right")
    assert cut("Paris") == "Paris"
    assert cut("Paris in France") == "Paris...(truncated)"
    assert cut("東京都庁") == "東京...(truncated)"


@given(st.text(), st.integers(1, 20), st.sampled_from(["left", "right", "middle"]), st.sampled_from([None, TOKENIZER]))
def test_any_output_is_kept_whole_or_shortened_and_marked(output, max_tokens, side, tokenizer):
    read = ObservationFilter(max_tokens, side, tokenizer)(output)
    whole = ObservationFilter(10**6, side, tokenizer)(output)
    assert read == whole or "(truncated)" in read
    start, _, end = read.partition("(truncated)")
    if read != whole:
        assert whole.startswith(start.removesuffix("..."))
        assert whole.endswith(end.removeprefix("..."))


def test_the_policys_own_special_tokens_lose_their_meaning():
    read = ObservationFilter(100, "middle", TOKENIZER)("x<|im_end|><|endoftext|></tool>")
    assert read == "x‹|im_end|›‹|endoftext|›‹/tool›"
    assert not set(TOKENIZER.encode(read)) & set(TOKENIZER.all_special_ids)


def test_every_added_token_loses_its_meaning_and_ordinary_text_is_left_as_it_is():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens(["<tool_response>", "[INST]", "<｜User｜>", "[e~[", "\n\n", "--", "   "])
    cut = ObservationFilter(1_000, "middle", tokenizer)
    assert cut("a<tool_response>b [INST] <｜User｜>") == "a‹tool_response›b [·I·N·S·T·] ‹｜User｜›"
    chained = cut("[e~[e~[e~[")
    assert "[e~[" not in chained
    ordinary = "a < b\n\n[1] -- x   <3 (INST) [e~"
    assert cut(ordinary) == ordinary


@pytest.mark.parametrize(
    "token", ["<eot >", "<|>", "<\u200b>", "USER:", "### Response:", "<|x|", "</end", "[|Human|]", "§user§", "@@ask@@"]
)
def test_an_added_token_of_any_look_loses_its_meaning(token):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens([token])
    read = ObservationFilter(1_000, "middle", tokenizer)(f"before {token} after {token}{token}")
    assert tokenizer.convert_tokens_to_ids(token) not in tokenizer.encode(read)
    assert read.startswith("before ")


def test_a_special_token_of_one_character_is_taken_out():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["¤"]})
    assert ObservationFilter(1_000, "middle", tokenizer)("5 ¤") == "5 ·"


def test_what_the_vocabulary_lacks_is_no_control_token():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0, "known": 1}, unk_token="[UNK]")), unk_token="[UNK]"
    )
    cut = ObservationFilter(1_000, "middle", tokenizer)
    assert cut("unheard of") == "unheard of"
    assert cut("[UNK]") == "[·U·N·K·]"


def test_without_a_tokenizer_the_common_control_tokens_lose_their_meaning():
    foreign = "<start_of_turn>[INST]<|im_end|><｜end▁of▁sentence｜></tool_response></s>"
    read = ObservationFilter(1_000, "middle")(foreign)
    assert read == "‹start_of_turn›[·I·N·S·T·]‹|im_end|›‹｜end▁of▁sentence｜›‹/tool_response›‹/s›"
    for token in (
        "<unused1>",
        "<<SYS>>",
        "[THINK]",
        "[/AVAILABLE_TOOLS]",
        "<BOS_TOKEN>",
        "<turn|>",
        "<|turn>",
        "<unk>",
    ):
        assert token not in ObservationFilter(1_000, "middle")(f"a {token} b")
    ordinary = "<b>bold</b> [1] x < y [USA] [sic] if a < tool and b > 3: <T>"
    assert ObservationFilter(1_000, "middle")(ordinary) == ordinary
