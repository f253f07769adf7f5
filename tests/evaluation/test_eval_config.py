"""A file of runs, and what is wrong with it."""

from pathlib import Path

import pytest

from workflow_r1.evaluation.config import Comparison, RunSettings, parse_settings
from workflow_r1.evaluation.errors import EvaluationError
from workflow_r1.operators import OperatorConfigError
from workflow_r1.runs.recipe import REFERENCE, compose_recipe


def read(tmp_path: Path, text: str) -> Comparison:
    path = tmp_path / "runs.yaml"
    path.write_text(text)
    return Comparison.read(path)


def test_runs_share_what_stands_at_the_top_and_may_differ_from_it(tmp_path: Path) -> None:
    comparison = read(
        tmp_path,
        """
        benchmarks: [nq, musique]
        limit: 100
        limits: {max_calls: 8}
        reference: ours
        runs:
          ours: {policy: "http://localhost:8000/v1", limit: 50}
          cot: {baseline: cot}
        """,
    )
    assert comparison.reference == "ours"
    assert {name: run.limit for name, run in comparison.runs.items()} == {"ours": 50, "cot": 100}
    assert comparison.runs["ours"].limits.max_calls == 8
    assert comparison.runs["cot"].benchmarks == ("nq", "musique")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("runs: {a: {baseline: cot}}", "run 'a': benchmarks: "),
        ("benchmarks: [nq]\nruns: {a: {baseline: best}}", "there is no baseline 'best': choose from direct, cot"),
        ("benchmarks: [nq]\nruns: {a: {}}", "run 'a': name either a policy or a baseline"),
        ("benchmarks: [nq]\nruns: {a: {baseline: cot, policy: b}}", "name either a policy or a baseline"),
        ("benchmarks: [nq]\nruns: {a: {baseline: cot, sample: 2}}", "run 'a': sample: Extra inputs"),
        ("benchmarks: [nq]\nruns: {a: {policy: b/c, samples: 2}}", "several samples of a policy need a temperature"),
        ("benchmarks: [nq]\nruns: {a/b: {baseline: cot}}", "the run name 'a/b' cannot name a folder"),
        ("benchmarks: [nq]\nreference: b\nruns: {a: {baseline: cot}}", "the reference 'b' is none of the runs a"),
        ("benchmarks: [nq]", "needs `runs`"),
        ("- a", "needs `runs`"),
        ("runs: [", "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_file_of_runs_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as raised:
        read(tmp_path, text)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read: No such file"):
        Comparison.read(tmp_path / "none.yaml")


def settings(**values: object) -> RunSettings:
    return parse_settings(RunSettings, {"policy": "http://a/v1", "model": "m", "benchmarks": ["nq"], **values}, "eval")


@pytest.fixture
def operator_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "API_KEY", "MODEL_NAME"):
        monkeypatch.setenv(f"OPERATOR_{name}", "http://b/v1")


@pytest.mark.usefixtures("operator_endpoint")
def test_a_run_stays_itself_where_only_its_size_its_speed_or_its_address_changes() -> None:
    identity = settings().identity()
    same = settings(policy="http://other/v1", limit=5, samples=1, concurrency=2, policy_prompt_price=1)
    assert same.identity() == identity
    for changed in ({"temperature": 0.5}, {"model": "n"}, {"limits": {"max_calls": 2}}, {"seed": 2}):
        assert settings(**changed).identity() != identity
    assert settings(prompt="none").identity() != identity
    assert "http://b/v1" not in str(settings(operators={"model": "x"}, prompt="none").identity())


@pytest.mark.usefixtures("operator_endpoint")
def test_an_endpoint_whose_model_has_no_name_is_known_by_its_address() -> None:
    identity = settings(model=None).identity()
    assert settings(model=None, policy="http://a/v1/").identity() == identity
    assert settings(model=None, policy="http://other/v1").identity() != identity
    assert settings().identity() != identity


@pytest.mark.usefixtures("operator_endpoint")
def test_the_operators_on_offer_belong_to_a_run_whose_prompt_does_not_list_them() -> None:
    identity = settings(prompt="none").identity()
    assert settings(prompt="none", pool={"names": identity["operators"]}).identity() == identity
    for changed in ({"names": ["Review"]}, {"search": True}):
        assert settings(prompt="none", pool=changed).identity() != identity


def test_a_policy_may_write_as_much_as_in_the_reference_recipe() -> None:
    assert settings().max_response_tokens == compose_recipe(REFERENCE, []).data.max_response_length


@pytest.mark.parametrize(
    "url", ["http://user:secret@h/v1", "'https://h/v1'", "http://h/v1?key=secret", "http:/h", "https://"]
)
def test_a_policys_url_that_cannot_be_one_is_refused_before_it_is_written_down(url: str) -> None:
    with pytest.raises(OperatorConfigError, match=r"^--policy must be an http:// or https:// URL") as raised:
        parse_settings(RunSettings, {"policy": url, "benchmarks": ["nq"]}, "eval")
    assert "secret" not in str(raised.value)


def test_a_chat_template_that_a_server_renders_is_told_by_the_request() -> None:
    with pytest.raises(EvaluationError, match=r"eval: template_arguments are for a checkpoint; .* --request"):
        settings(template_arguments={"enable_thinking": False})


def test_blanks_around_a_policys_url_are_no_part_of_it() -> None:
    settings = parse_settings(RunSettings, {"policy": " HTTP://h/v1/ ", "benchmarks": ["nq"]}, "eval")
    assert (settings.policy, settings.is_endpoint) == ("HTTP://h/v1", True)
