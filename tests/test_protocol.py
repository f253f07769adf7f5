import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_r1.protocol import (
    STOP_STRINGS,
    TAGS,
    OperatorCall,
    neutralise,
    parse_turn,
    read_observation,
    render_observation,
)


def test_a_call_is_read_with_its_operator_and_input():
    turn = parse_turn("<think>who made it?</think>\n<tool>AnswerGenerate: who directed Velmora ?</tool>")
    assert turn.think == "who made it?"
    assert turn.calls == (OperatorCall("AnswerGenerate", "who directed Velmora ?"),)
    assert turn.answer is None
    assert turn.error is None


def test_an_answer_is_read_without_the_white_space_around_it():
    turn = parse_turn("<think>done</think><answer> Paris\n</answer>\n")
    assert turn.answer == "Paris"
    assert not turn.calls
    assert turn.error is None


def test_operator_fields_pass_through_as_they_are():
    turn = parse_turn("<think>t</think><tool>Review: <question>a < b?</question><solution>1:2</solution></tool>")
    assert turn.calls[0].input == "<question>a < b?</question><solution>1:2</solution>"


def test_calls_of_one_turn_keep_their_order_up_to_the_limit():
    text = "<think>t</think><tool>A: 1</tool>\n<tool>B: 2</tool>"
    assert [call.operator for call in parse_turn(text, max_calls=2).calls] == ["A", "B"]
    assert "At most 1" in (parse_turn(text, max_calls=1).error or "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "<answer>Paris</answer>",
        "<tool>A: 1</tool>",
        "<think>t</think>",
        "<think>t</think>Paris",
        "<think>t</think><answer></answer>",
        "<think>t</think><answer>Paris</answer> and more",
        "<think>t</think><answer>Paris",
        "<think>t<answer>Paris</answer>",
        "<think><answer>Paris</answer></think>",
        "<think>a<think>b</think></think><answer>c</answer>",
        "<think>t</think><answer>a</answer><answer>b</answer>",
        "<think>t</think><tool>A: 1</tool><answer>b</answer>",
        "<think>t</think><answer>b</answer><tool>A: 1</tool>",
        "<think>t</think><tool>no colon</tool>",
        "<think>t</think><tool>A:   </tool>",
        "<think>t</think><tool>: input</tool>",
        "<think>t</think><tool>two words: input</tool>",
        "<think>t</think><tool>A: <info>made up</info></tool>",
        "<think>t</think><tool>A: 1</tool><info>made up</info>",
        "<info>made up</info><think>t</think><answer>b</answer>",
        "<think>t</think><answer>b<tool>A: 1</tool></answer>",
        "<THINK>t</THINK><answer>b</answer>",
        "<think>t</think>< answer >b</answer>",
    ],
)
def test_whatever_breaks_the_grammar_is_malformed_and_says_why(text):
    turn = parse_turn(text, max_calls=3)
    assert turn.error
    assert turn.answer is None
    assert turn.calls == ()


_TAG_TEXTS = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
_MARKUP = st.sampled_from([*_TAG_TEXTS, "A: b", "x", "\n", "<", ">", ":"])
_SOUP = st.lists(_MARKUP, max_size=12).map("".join)


@given(_SOUP | st.text(), st.integers(1, 4))
def test_no_text_breaks_the_parser_and_exactly_one_outcome_is_set(text, max_calls):
    turn = parse_turn(text, max_calls)
    assert [bool(turn.calls), turn.answer is not None, turn.error is not None].count(True) == 1
    assert len(turn.calls) <= max_calls


@given(_SOUP)
def test_a_parsed_answer_stands_in_the_text_between_its_tags(text):
    if (answer := parse_turn(text).answer) is not None:
        assert answer in text.split("<answer>")[-1].split("</answer>")[0]


@given(st.text(st.characters(exclude_characters="<>"), min_size=1), st.text(st.characters(exclude_characters="<>")))
def test_what_was_written_as_a_turn_is_read_back(content, think):
    turn = parse_turn(f"<think>{think}</think><answer>{content}</answer>")
    assert turn.think == think.strip()
    assert turn.answer == (content.strip() or None)


@given(_SOUP | st.text())
def test_neutralised_text_holds_no_tag_and_parses_to_nothing(text):
    safe = neutralise(text)
    assert parse_turn(safe).error
    assert not any(stop in safe for stop in STOP_STRINGS)
    assert neutralise(safe) == safe


@pytest.mark.parametrize("tag", ["<answer>", "</answer>", "< Answer >", "</ tool>", "<info x='1'>", "<think\n>"])
def test_every_spelling_of_a_tag_is_neutralised(tag):
    assert "<" not in neutralise(tag)


def test_chat_control_tokens_are_neutralised():
    assert neutralise("<|im_end|> <|eot_id|>") == "‹|im_end|› ‹|eot_id|›"
    assert neutralise("</s>[INST] x", ["</s>", "[INST]"]) == "‹/s›[·I·N·S·T·] x"


def test_ordinary_text_and_operator_fields_are_left_alone():
    text = "a < b > c, <question>why?</question> 3 <answers> x, if a < tool and b > 3"
    assert neutralise(text) == text


def test_an_observation_names_the_operators_only_where_there_are_several():
    assert render_observation([("A", "x")]) == "<info>x</info>"
    assert read_observation(render_observation([("A", "x")])) == "x"
    assert render_observation([("A", "x"), ("B", "y")]) == "<info>[1] A: x\n[2] B: y</info>"
