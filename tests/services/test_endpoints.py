"""Operators that name an endpoint of their own."""

import pytest
import support.faulty_endpoint as c

from workflow_r1.operators import OperatorConfigError, OperatorPool, OperatorSettings

OTHER_KEY = "sk-of-the-other-endpoint"

STRONG_REVIEW = """
from workflow_r1.operators.builtin import Review
StrongReview = Review.model_copy(update={"name": "StrongReview", "endpoint": "strong"})
"""


@pytest.fixture
async def other():
    endpoint = c.Endpoint()
    await endpoint.start()
    endpoint.behaviour = c.result("Rome")
    yield endpoint
    await endpoint.stop()


@pytest.fixture
def environ(endpoint):
    return {"OPERATOR_BASE_URL": endpoint.url, "OPERATOR_API_KEY": c.KEY, "OPERATOR_MODEL_NAME": "small"}


async def test_an_operator_is_served_by_the_endpoint_that_bears_its_name(endpoint, environ):
    pool = OperatorPool.from_env(environ, endpoints={"Review": {"model": "large", "prompt_price": 1e6}})
    async with pool:
        review = await pool.call("Review", "<question>q</question><solution>s</solution>")
        answer = await pool.call("AnswerGenerate", "q")
    assert [body["model"] for body in endpoint.bodies] == ["large", "small"]
    assert (review.cost, answer.cost) == (10, 0)


async def test_a_declaration_names_an_endpoint_which_has_a_url_and_a_key_of_its_own(
    endpoint, other, environ, tmp_path, monkeypatch
):
    (tmp_path / "strong_review.py").write_text(STRONG_REVIEW)
    monkeypatch.syspath_prepend(tmp_path)
    environ["OPERATOR_API_KEY_STRONG"] = OTHER_KEY
    pool = OperatorPool.from_env(
        environ, modules=["strong_review"], endpoints={"strong": {"base_url": other.url, "model": "large"}}
    )
    async with pool:
        assert (await pool.call("StrongReview", "<question>q</question><solution>s</solution>")).text == "Rome"
        assert (await pool.call("AnswerGenerate", "q")).text == "Paris"
        assert list(await pool.check()) == ["main", "strong"]
    assert {headers["Authorization"] for headers in other.headers} == {f"Bearer {OTHER_KEY}"}
    assert {headers["Authorization"] for headers in endpoint.headers} == {f"Bearer {c.KEY}"}


async def test_each_endpoint_keeps_its_own_limits_and_cache(endpoint, other, environ, tmp_path):
    environ["OPERATOR_API_KEY_REVIEW"] = OTHER_KEY
    pool = OperatorPool.from_env(
        environ,
        cache="on",
        cache_dir=tmp_path,
        requests_per_minute=100,
        endpoints={"Review": {"base_url": other.url, "max_concurrency": 2}},
    )
    limits = pool.settings.limits
    assert (limits["main"].max_concurrency, limits["main"].requests_per_minute) == (256, 100)
    assert (limits["Review"].max_concurrency, limits["Review"].requests_per_minute) == (2, 100)
    text = "<question>q</question><solution>s</solution>"
    async with pool:
        await pool.call("Review", text)
        assert (await pool.call("Review", text)).cache_hits == 1
    async with OperatorPool.from_env(environ, cache="on", cache_dir=tmp_path) as pool:
        assert (await pool.call("Review", text)).cache_hits == 0


def test_the_main_key_is_not_sent_to_another_url(environ):
    with pytest.raises(OperatorConfigError, match=r"^OPERATOR_API_KEY_STRONG is not set: the endpoint 'strong' at a"):
        OperatorSettings.from_env(environ, endpoints={"strong": {"base_url": "https://elsewhere.example/v1"}})


async def test_a_refused_key_is_named_by_its_own_variable(other, environ):
    environ["OPERATOR_API_KEY_REVIEW"] = OTHER_KEY
    other.behaviour = c.status(401, f"no {OTHER_KEY}")
    pool = OperatorPool.from_env(environ, ["Review"], endpoints={"Review": {"base_url": other.url}})
    async with pool:
        result = await pool.call("Review", "<question>q</question><solution>s</solution>")
    assert result.error.endswith("refused the key (401): set OPERATOR_API_KEY_REVIEW to a key that it accepts.")
    assert OTHER_KEY not in repr(result) + repr(pool.settings) + pool.settings.model_dump_json()


@pytest.mark.parametrize(
    ("endpoints", "complaint"),
    [
        ({"strong": {"modle": "large"}}, r"^Operator setting workflow_r1\.operators\.endpoints\.strong\.modle is"),
        ({"main": {}}, r"^An endpoint cannot be named 'main'"),
        ({"two words": {}}, r"^An endpoint cannot be named 'two words'"),
        (
            {"strong": {"base_url": "ftp://x", "api_key": "k"}},
            r"^workflow_r1.operators.endpoints.strong.base_url must be an http",
        ),
    ],
)
def test_a_wrong_endpoint_is_one_clear_sentence(environ, endpoints, complaint):
    with pytest.raises(OperatorConfigError, match=complaint):
        OperatorSettings.from_env(environ, endpoints=endpoints)


def test_an_endpoint_that_nobody_configured_is_one_clear_sentence(environ, tmp_path, monkeypatch):
    (tmp_path / "lost_review.py").write_text(STRONG_REVIEW)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OperatorConfigError, match=r"^The operator StrongReview asks the endpoint 'strong': add it"):
        OperatorPool.from_env(environ, modules=["lost_review"])
