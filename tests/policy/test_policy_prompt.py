"""The policy's prompt says what the pool offers and what the protocol accepts."""

import re

import pytest

from workflow_r1.operators import BUILTIN_OPERATORS, InputField, OperatorSpec
from workflow_r1.policy.prompt import PolicyPrompt, PromptError, render_system_prompt
from workflow_r1.protocol import parse_turn
from workflow_r1.rollout import RolloutLimits

TRANSLATE = OperatorSpec(
    name="Translate", use_when="a text is not in English", inputs=(InputField(name="text"),), prompt="{text}"
)


def template(tmp_path, text):
    path = tmp_path / "prompt.jinja"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_operator_is_offered_with_its_use_and_its_input():
    prompt = render_system_prompt([*BUILTIN_OPERATORS, TRANSLATE], RolloutLimits())
    for spec in (*BUILTIN_OPERATORS, TRANSLATE):
        [form] = re.findall(rf"<tool>{spec.name}: (.*)</tool>", prompt)
        assert spec.use_when in prompt
        assert form == (f"[{spec.inputs[0].name}]" if spec.is_plain else spec.input_form)


def test_a_call_written_in_the_offered_form_is_one_that_protocol_and_operator_accept():
    prompt = render_system_prompt(BUILTIN_OPERATORS, RolloutLimits())
    for spec, block in zip(BUILTIN_OPERATORS, re.findall(r"<tool>(?!Operator).*</tool>", prompt), strict=True):
        turn = parse_turn(f"<think>As shown.</think>\n{block.replace('...', 'my text')}")
        [call] = turn.calls
        assert call.operator == spec.name
        assert set(spec.parse(call.input)) == {field.name for field in spec.inputs}


def test_operators_that_are_not_offered_are_not_mentioned():
    prompt = render_system_prompt(BUILTIN_OPERATORS[:1], RolloutLimits())
    assert [spec.name for spec in BUILTIN_OPERATORS if spec.name in prompt] == [BUILTIN_OPERATORS[0].name]


def test_the_two_turns_that_the_prompt_shows_are_well_formed():
    prompt = render_system_prompt(BUILTIN_OPERATORS, RolloutLimits())
    shown = re.findall(r"<think>.*</think>\n<(?:tool|answer)>.*</(?:tool|answer)>", prompt)
    assert [parse_turn(turn).error for turn in shown] == [None, None]


def test_the_budget_and_parallel_calls_are_stated_as_configured():
    prompt = render_system_prompt(BUILTIN_OPERATORS, RolloutLimits())
    assert "You have 20 operator calls" in prompt
    assert "A turn holds one call." in prompt
    prompt = render_system_prompt(BUILTIN_OPERATORS, RolloutLimits(max_calls=1, max_parallel_calls=3))
    assert "You have 1 operator call " in prompt
    assert "up to 3 <tool> blocks" in prompt
    assert "A turn holds one call." not in prompt


def test_with_all_operators_the_prompt_leaves_the_reference_budget_half_free():
    # English takes more than three characters a token in every tokenizer in use; the recipe's prompts have 1280 tokens.
    assert len(render_system_prompt(BUILTIN_OPERATORS, RolloutLimits(max_parallel_calls=4))) / 3 < 0.75 * 1280


QUESTION = [{"role": "user", "content": "who?"}]


def test_the_messages_are_the_prompt_and_the_bare_question():
    system = {"role": "system", "content": "Be brief."}
    assert PolicyPrompt("Be brief.").messages(QUESTION) == [system, *QUESTION]
    assert PolicyPrompt(None).messages(QUESTION) == QUESTION


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("content", ["Mine.", ""])
def test_a_row_with_a_system_message_of_its_own_keeps_it(role, content):
    row = [{"role": role, "content": content}, *QUESTION]
    assert PolicyPrompt("Ours.").messages(row) == row


def test_a_rows_earlier_turns_stay_behind_the_system_message():
    row = [*QUESTION, {"role": "assistant", "content": "Whom?"}, *QUESTION]
    assert PolicyPrompt("Ours.").messages(row) == [{"role": "system", "content": "Ours."}, *row]
    assert row[0]["role"] == "user"  # the row itself is as it was


def test_a_prompt_is_the_built_in_one_none_or_a_file(tmp_path):
    path = template(tmp_path, "Use Translate.")
    for setting, system in (
        ("default", render_system_prompt([TRANSLATE], RolloutLimits())),
        ("none", None),
        (str(path), "Use Translate."),
    ):
        assert PolicyPrompt.of(setting, [TRANSLATE], RolloutLimits()).system == system


def test_a_template_of_ones_own_sees_the_declarations(tmp_path):
    path = template(
        tmp_path, "{{ max_calls }}:{% for op in operators %} {{ op.name }}={{ op.input_form }}{% endfor %}\n"
    )
    assert render_system_prompt([TRANSLATE], RolloutLimits(max_calls=3), path) == "3: Translate=text"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fine\n{% for op in operators %}", "line 2: Unexpected end of template"),
        ("{{ question }} Translate", "cannot be rendered: 'question' is undefined"),
        ("Translate {{ ''.__class__.__mro__ }}", "cannot be rendered: access to attribute '__class__'"),
        ("Translate {{ operators.clear() }}", "cannot be rendered: access to attribute 'clear'"),
        ("Translate {{ 1 / 0 }}", "cannot be rendered: division by zero"),
        ("{% include '/etc/hostname' %} Translate", "cannot be rendered: "),
        ("Think, then answer.", "does not mention Translate: loop over `operators`"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(tmp_path, text, reason):
    with pytest.raises(PromptError, match=rf"^The prompt template .*prompt\.jinja,? .*{reason}"):
        render_system_prompt([TRANSLATE], RolloutLimits(), template(tmp_path, text))


def test_a_missing_template_says_so(tmp_path):
    with pytest.raises(PromptError, match=r"absent\.jinja cannot be read: No such file"):
        render_system_prompt([TRANSLATE], RolloutLimits(), tmp_path / "absent.jinja")
