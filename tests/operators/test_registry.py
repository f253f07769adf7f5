import sys

import pytest

from workflow_r1.operators import OperatorConfigError
from workflow_r1.operators.registry import select_operators

TRANSLATE = """
from workflow_r1.operators import InputField, OperatorSpec, Sampling

Translate = OperatorSpec(
    name="Translate",
    use_when="a text is not in English",
    inputs=(InputField(name="text"),),
    prompt="Translate into English: {text}",
    sampling=Sampling(temperature=0.3, max_tokens=99),
)
"""


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


async def test_an_operator_of_ones_own_is_a_declaration_in_a_module(endpoint, make_pool, write_module):
    pool = make_pool(operators=["Translate", "Review"], modules=(write_module("my_translate", TRANSLATE),))
    assert [spec.name for spec in pool.specs] == ["Translate", "Review"]
    result = await pool.call("Translate", "Guten Tag {text}")
    assert result.text.startswith("<reasoning>")  # it names no reply tag, so the whole reply is the result
    body = endpoint.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "Translate into English: Guten Tag {text}"}]
    assert (body["temperature"], body["max_tokens"]) == (0.3, 99)


def test_a_module_may_replace_a_built_in_operator_and_adds_to_the_rest(make_pool, write_module):
    source = TRANSLATE.replace('name="Translate"', 'name="Review"')
    specs = {spec.name: spec for spec in make_pool(modules=(write_module("my_review", source),)).specs}
    assert specs["Review"].use_when == "a text is not in English"
    assert "AnswerGenerate" in specs


def test_the_built_in_search_is_on_offer_where_it_is_asked_for_and_ones_own_always(write_module):
    assert "Search" not in select_operators(None)
    assert list(select_operators(None, search=True)) == [*select_operators(None), "Search"]
    assert list(select_operators(["Review"], search=True)) == ["Review", "Search"]
    own = write_module("my_search", TRANSLATE.replace('name="Translate"', 'name="Search"'))
    for search in (False, True):
        assert select_operators(None, [own], search)["Search"].use_when == "a text is not in English"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1", "declares no OperatorSpec at its top level"),
        ("import not_there_at_all", "cannot be imported: No module named 'not_there_at_all'"),
        (TRANSLATE.replace("{text}", "{txt}"), "must use exactly its inputs"),
        (TRANSLATE.replace('"Translate"', '"WarningOp"'), "the name is taken"),
    ],
)
def test_a_wrong_module_is_one_clear_sentence(make_pool, write_module, source, complaint):
    with pytest.raises(OperatorConfigError, match=complaint) as caught:
        make_pool(modules=(write_module("my_wrong", source),))
    assert "my_wrong" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_does_not_exist_is_one_clear_sentence(make_pool):
    with pytest.raises(OperatorConfigError, match=r"^The operator module 'no.such.module' cannot be imported"):
        make_pool(modules=("no.such.module",))
