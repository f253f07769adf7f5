import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workflow_r1.operators import BUILTIN_OPERATORS, InputField, OperatorSpec
from workflow_r1.operators.builtin import AnswerGenerate, Review, ScEnsemble
from workflow_r1.operators.reply import extract_tag, has_tag
from workflow_r1.operators.spec import OperatorInputError
from workflow_r1.protocol import neutralise

untagged = st.text(st.characters(exclude_characters="<>"), min_size=1).map(str.strip).filter(bool)


def spec(**changes) -> OperatorSpec:
    base = {"name": "Echo", "use_when": "always", "inputs": (InputField(name="text"),), "prompt": "Say {text}"}
    return OperatorSpec(**{**base, **changes})


def test_the_input_form_that_the_policy_is_shown_follows_the_declaration():
    forms = {operator.name: operator.input_form for operator in BUILTIN_OPERATORS}
    assert forms == {
        "AnswerGenerate": "question",
        "Custom": "<task>...</task><instruction>...</instruction>",
        "PromptOptimizer": "query",
        "Review": "<question>...</question><solution>...</solution>",
        "Revise": "<question>...</question><solution>...</solution><feedback>...</feedback>",
        "MultiAnswerGenerate": "question",
        "ScEnsemble": "<query>...</query><solution>...</solution><solution>...</solution>",
    }


@pytest.mark.parametrize("operator", BUILTIN_OPERATORS, ids=lambda operator: operator.name)
def test_what_an_operator_is_said_to_take_it_takes(operator):
    assert all(values == ["..."] * len(values) for values in operator.parse(operator.input_form).values()) or (
        operator.is_plain and operator.parse(operator.input_form) == {operator.inputs[0].name: [operator.input_form]}
    )


@pytest.mark.parametrize("operator", BUILTIN_OPERATORS, ids=lambda operator: operator.name)
def test_no_prompt_uses_a_tag_of_the_protocol(operator):
    assert neutralise(operator.system + operator.prompt) == operator.system + operator.prompt


@given(question=untagged, solution=untagged)
def test_tagged_fields_come_back_as_written(question, solution):
    text = f" <question> {question} </question> and <solution>\n{solution}</solution>"
    assert Review.parse(text) == {"question": [question], "solution": [solution]}


@given(text=st.text().map(str.strip).filter(bool))
def test_input_text_is_inserted_and_never_interpreted(text):
    operator = spec(system="Be {brief}", prompt="{{literal}} {text}")
    assert operator.messages({"text": [text]}) == [
        {"role": "system", "content": "Be {brief}"},
        {"role": "user", "content": "{literal} " + text},
    ]


def test_a_field_inside_another_field_is_part_of_its_text():
    parsed = Review.parse("<question>q</question><solution>s <question>not one</question></solution>")
    assert parsed == {"question": ["q"], "solution": ["s <question>not one</question>"]}


def test_a_plain_input_may_stand_in_its_own_tag():
    assert AnswerGenerate.parse("<question>who?</question>") == {"question": ["who?"]}
    assert AnswerGenerate.parse("is 1 < 2?") == {"question": ["is 1 < 2?"]}


def test_repeated_inputs_are_listed_under_letters():
    inputs = ScEnsemble.parse("<query>q</query><solution>x</solution><solution>y</solution>")
    assert "[A]\nx\n\n[B]\ny" in ScEnsemble.messages(inputs)[-1]["content"]


@pytest.mark.parametrize(
    ("operator", "text", "complaint"),
    [
        (AnswerGenerate, "  ", "AnswerGenerate needs a question as its input."),
        (
            Review,
            "<question>q</question>",
            "Review needs <solution>: its input is written <question>...</question><solution>...</solution>.",
        ),
        (Review, "<question></question><solution>s</solution>", "Review needs <question>: its input is written"),
        (Review, "<question>q</question><solution>s", "Review needs <solution>"),
        (
            Review,
            "<question>q</question><solution>s</solution><solution>s</solution>",
            "Review takes at most 1 <solution>.",
        ),
        (ScEnsemble, "<query>q</query><solution>s</solution>", "ScEnsemble needs 2 or more <solution>"),
        (ScEnsemble, "<query>q</query>" + "<solution>s</solution>" * 27, "ScEnsemble takes at most 26 <solution>."),
    ],
)
def test_a_wrong_input_is_told_what_to_write(operator, text, complaint):
    with pytest.raises(OperatorInputError) as caught:
        operator.parse(text)
    assert str(caught.value).startswith(complaint)


def test_a_degenerate_input_is_parsed_in_no_time():
    with pytest.raises(OperatorInputError):
        Review.parse("<question>" * 5_000)  # 12 million steps for a backtracking pattern, and more


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"prompt": "Say {txt}"}, "must use exactly its inputs"),
        ({"prompt": "Say {text.__class__}"}, "must use exactly its inputs"),
        ({"prompt": "Say {}"}, "must use exactly its inputs"),
        ({"inputs": (InputField(name="text"), InputField(name="text"))}, "declares an input twice"),
        ({"inputs": (InputField(name="answer"),), "prompt": "{answer}"}, "it is a protocol tag"),
        ({"name": "two words"}, "name"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_wrong_declaration_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        spec(**changes)


@pytest.mark.parametrize(
    ("reply", "extracted", "complete"),
    [
        ("<reasoning>r</reasoning><result> Paris </result>", "Paris", True),
        ("I write <result> tags: <result>Paris</result> done", "Paris", True),
        ("<result>Rome</result> no: <result>Paris</result>", "Paris", True),
        ("<reasoning>r</reasoning><result>Paris", "Paris", False),
        ("<reasoning>r</reasoning>\nParis", "Paris", False),
        ("<think>r</think>Paris", "Paris", False),
        ("Paris", "Paris", False),
        ("<result></result>", "", False),
        ("", "", False),
    ],
)
def test_the_result_is_read_from_the_reply(reply, extracted, complete):
    assert extract_tag(reply, "result") == extracted
    assert has_tag(reply, "result") == complete


@given(st.text(st.sampled_from("<>/result think")))
def test_any_reply_gives_some_text(reply):
    assert len(extract_tag(reply, "result")) <= len(reply)
