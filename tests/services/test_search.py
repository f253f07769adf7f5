"""The Search operator on both of its back ends."""

import json
import logging

import pytest
import support.faulty_endpoint as c
from aiohttp import web

from workflow_r1.operators import OperatorConfigError, OperatorPool
from workflow_r1.services.corpus import Corpus, index_passages

ENVIRON = {"OPERATOR_BASE_URL": "http://unused.example/v1", "OPERATOR_API_KEY": "k", "OPERATOR_MODEL_NAME": "m"}

PASSAGES = [
    {"title": "Paris", "text": "Paris is the capital of France, on the river Seine."},
    {"title": "Rome", "text": "Rome is the capital of Italy, on the river Tiber."},
    {"contents": '"Danube"\nThe Danube flows through Vienna and Budapest.'},
    {"text": "A passage without a title on the mountains of Norway."},
]


class SearchApi:
    """A search API in Serper's shape on loopback."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict, str]] = []
        self.failures: list[web.Response] = []
        self.reply: dict = {
            "searchParameters": {"q": "echoed"},
            "organic": [
                {"title": "France", "link": "https://x.example", "snippet": "Its capital is Paris.", "position": 1},
                {"title": "Seine", "link": "https://y.example", "snippet": "A river.", "position": 2},
                {"title": "Third", "link": "https://z.example", "position": 3},
            ],
        }

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/search", self._search)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/search"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _search(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((await request.json(), request.headers.get("X-API-KEY", "")))
        return self.failures.pop(0) if self.failures else web.json_response(self.reply)


@pytest.fixture
async def api():
    api = SearchApi()
    api.url = await api.start()
    yield api
    await api.stop()


@pytest.fixture
async def make_searcher(api):
    """Pools with Search alone, on the API unless a local index is named."""
    pools = []

    def make(**settings) -> OperatorPool:
        environ = {**ENVIRON, "SEARCH_URL": api.url, "SEARCH_API_KEY": c.KEY}
        search = {"backoff": 0.01, **settings.pop("search", {})}
        pools.append(OperatorPool.from_env(environ, ["Search"], search=search, **settings))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.aclose()


@pytest.fixture
def index(tmp_path):
    source = tmp_path / "passages.jsonl"
    source.write_text("\n".join(map(json.dumps, PASSAGES)))
    assert index_passages(source, tmp_path / "index") == (4, 0)
    return tmp_path / "index"


async def test_an_api_is_asked_and_its_results_are_read(api, make_searcher):
    pool = make_searcher(search={"results": 2, "request_price": 1.0})
    result = await pool.call("Search", "capital of France?")
    assert result.text == "[1] France\nIts capital is Paris.\n\n[2] Seine\nA river."
    assert api.requests == [({"q": "capital of France?", "num": 2}, c.KEY)]
    assert (result.requests, result.cost) == (1, 0.001)


async def test_an_answer_box_and_a_knowledge_graph_come_first(api, make_searcher):
    api.reply["answerBox"] = {"title": "Capital of France", "answer": "Paris"}
    api.reply["knowledgeGraph"] = {"title": "Paris", "type": "City", "description": "A city in France."}
    result = await make_searcher().call("Search", "q")
    assert result.text == (
        "[1] Capital of France\nParis\n\n[2] Paris (City)\nA city in France.\n\n[3] France\nIts capital is Paris."
    )


async def test_nothing_found_is_said(api, make_searcher):
    api.reply = {"organic": []}
    assert (await make_searcher().call("Search", "q")).text == "Nothing was found."


async def test_a_search_is_retried_and_cached_like_any_other_call(api, make_searcher, tmp_path):
    api.failures = [web.Response(status=503), web.Response(text="<html>"), web.Response(status=429)]
    pool = make_searcher(cache="on", cache_dir=tmp_path)
    first = await pool.call("Search", "q")
    assert (first.failed, first.retries, len(api.requests)) == (False, 3, 4)
    assert (await pool.call("Search", "q")).cache_hits == 1
    assert c.KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ((403, {"message": f"Unauthorized {c.KEY}"}), "refused the key (403): set SEARCH_API_KEY to a key"),
        ((400, {"message": f"Not enough credits {c.KEY}"}), "answered 400: Not enough credits ***."),
        ((302, {}), "answered 302."),
    ],
)
async def test_a_search_that_fails_for_good_says_why_without_the_key(api, make_searcher, caplog, failure, sentence):
    caplog.set_level(logging.DEBUG)
    status, body = failure
    api.failures = [web.json_response(body, status=status, headers={"Location": "http://elsewhere.example"})]
    result = await make_searcher().call("Search", "q")
    assert (result.failed, result.text) == (True, "Search is not available right now: the call was not served.")
    assert result.error.startswith(f"The search endpoint {api.url} ")
    assert sentence in result.error
    assert c.KEY not in repr(result) + caplog.text


async def test_an_api_that_is_not_there_fails_with_one_line(api, make_searcher):
    await api.stop()
    result = await make_searcher(search={"max_retries": 0}).call("Search", "q")
    assert result.error.endswith("cannot be reached: check that it runs and that SEARCH_URL is right.")


async def test_a_local_corpus_is_searched_by_words(make_searcher, index):
    pool = make_searcher(search={"index": index, "results": 1})
    paris = await pool.call("Search", "Which river is the capital of France on?")
    assert paris.text == "[1] Paris\nParis is the capital of France, on the river Seine."
    assert (paris.requests, paris.failed) == (0, False)
    assert (await pool.call("Search", "Budapest")).text == "[1] Danube\nThe Danube flows through Vienna and Budapest."
    assert (await pool.call("Search", "Norway")).text.startswith("[1] A passage without")
    for query in ("xylophone", "the", "?"):
        assert (await pool.call("Search", query)).text == "Nothing was found."
    assert list(await pool.check()) == ["search"]


def test_the_best_passage_comes_first_and_no_more_than_there_are(index):
    corpus = Corpus(index)
    assert len(corpus) == 4
    assert [title for title, _ in corpus.search("capital river Tiber", 10)] == ["Rome", "Paris"]


def test_search_is_offered_only_where_it_is_named_and_needs_a_back_end(index):
    assert "Search" not in [spec.name for spec in OperatorPool.from_env({**ENVIRON, "SEARCH_URL": "http://x"}).specs]
    with pytest.raises(OperatorConfigError, match=r"^The operator Search has no back end: set SEARCH_URL and"):
        OperatorPool.from_env(ENVIRON, ["Search"])
    with pytest.raises(OperatorConfigError, match=r"^SEARCH_URL must be an http:// or https:// URL"):
        OperatorPool.from_env({**ENVIRON, "SEARCH_URL": "google.serper.dev"}, ["Search"])
    both = {"index": index, "url": "http://x.example"}
    with pytest.raises(OperatorConfigError, match=r"^Search needs one back end"):
        OperatorPool.from_env(ENVIRON, ["Search"], search=both)


def test_a_folder_without_an_index_is_one_clear_sentence(tmp_path):
    with pytest.raises(OperatorConfigError, match=r"^There is no search index in .*: build one with 'workflow-r1"):
        OperatorPool.from_env(ENVIRON, ["Search"], search={"index": tmp_path})
