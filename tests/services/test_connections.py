"""Names, proxies, certificates and keys that are wrong: one sentence each, over real connections."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from support.certificates import server_context
from support.faulty_endpoint import KEY, Endpoint
from support.recording_proxy import RecordingProxy, recording_proxy

from workflow_r1.operators import OperatorConfigError, OperatorEndpointError, OperatorPool

OUTSIDE = "llm.example"
COMPLETION = {"choices": [{"message": {"content": "ready"}}], "organic": [{"title": "t", "snippet": "s"}]}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def proxy() -> Iterator[RecordingProxy]:
    with recording_proxy() as proxy:
        yield proxy


def environ(url: str, **more: str) -> dict[str, str]:
    return {"OPERATOR_BASE_URL": url, "OPERATOR_API_KEY": KEY, "OPERATOR_MODEL_NAME": "small", **more}


async def fault_of(url: str, operator: str = "AnswerGenerate") -> str:
    """What `operators check` says about an endpoint at `url`."""
    settings = {"backoff": 0.01, "max_backoff": 0.01}
    search = {"url": url, "api_key": KEY, **settings}
    pool = OperatorPool.from_env(environ(url), [operator], search=search, **settings)
    async with pool:
        with pytest.raises(OperatorEndpointError) as raised:
            await pool.check()
    assert KEY not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("no_proxy", [None, "", "[::1", "a;b", "llm.example"])
async def test_an_endpoint_of_this_machine_is_asked_past_every_proxy(
    endpoint: Endpoint, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, variable: str, no_proxy: str | None
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    if no_proxy is not None:
        monkeypatch.setenv("NO_PROXY", no_proxy)
    for host in ("127.0.0.1", "localhost"):
        url = endpoint.url.replace("127.0.0.1", host)
        search = {"SEARCH_URL": url.replace("/v1", "/search"), "SEARCH_API_KEY": KEY}
        async with OperatorPool.from_env(environ(url, **search), ["AnswerGenerate"]) as pool:
            await pool.check()
    assert len(endpoint.bodies) == 2
    assert proxy.asked == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "Http_Proxy", "ALL_PROXY"])
async def test_what_is_outside_is_asked_through_the_proxy_search_too(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, proxy.url.replace("//", "//user:secret@"))
    proxy.status, proxy.body = 200, COMPLETION
    search = {"SEARCH_URL": "http://search.example/search", "SEARCH_API_KEY": KEY}
    async with OperatorPool.from_env(environ(f"http://{OUTSIDE}/v1", **search), ["AnswerGenerate", "Search"]) as pool:
        await pool.check()
    assert proxy.asked == [f"POST http://{OUTSIDE}/v1/chat/completions", "POST http://search.example/search"]
    assert proxy.credentials == ["Basic dXNlcjpzZWNyZXQ="] * 2


@pytest.mark.parametrize("operator", ["AnswerGenerate", "Search"])
@pytest.mark.parametrize(
    ("scheme", "status", "sentence"),
    [
        ("https", 502, "cannot be reached: the proxy answered 502; correct or unset that variable"),
        ("https", 403, "cannot be reached: the proxy answered 403; correct or unset that variable"),
        ("https", 407, "the proxy asks for a user and a password (407)"),
        ("http", 407, "the proxy asks for a user and a password (407)"),
        ("http", 502, "answered 502."),
    ],
)
async def test_a_proxy_that_refuses_is_named_by_its_variable(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, scheme: str, status: int, sentence: str, operator: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url.replace("//", "//user:secret@"))
    proxy.status = proxy.connect_status = status
    said = await fault_of(f"{scheme}://{OUTSIDE}/v1", operator)
    assert f"{scheme}://{OUTSIDE}/v1 (through the proxy of ALL_PROXY) " in said
    assert sentence in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "http://user:secret@127.0.0.1:9",
            "cannot be reached, because the proxy cannot: correct or unset",
        ),
        ("http://secret.invalid:3128", "cannot be reached, because the proxy cannot: correct or unset"),
        ("socks5://user:secret@p:1", "cannot be reached: HTTPS_PROXY names a SOCKS proxy, which is not supported"),
        ("http://user:secret@p:port", "cannot be reached: HTTPS_PROXY is not the URL of a proxy"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, url: str, sentence: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    said = await fault_of(f"https://{OUTSIDE}/v1")
    assert sentence in said
    assert "secret" not in said
    assert "\n" not in said


@pytest.fixture
async def serve() -> "Iterator[Callable[..., str]]":
    """Serves nothing over TLS, or over plain HTTP without a context; gives the port."""
    runners = []

    async def start(context: ssl.SSLContext | None) -> int:
        runners.append(web.AppRunner(web.Application(), shutdown_timeout=0.1))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0, ssl_context=context).start()
        return runners[-1].addresses[0][1]

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("trusted", "certificate", "sentence"),
    [
        (False, {}, "certificate that is self-signed, so it is not trusted: set SSL_CERT_FILE to a file"),
        (True, {"days": (-3, -1)}, "certificate that has expired: have it renewed"),
        (True, {"days": (1, 3)}, "certificate that is not valid yet"),
        (True, {"host": "other.example"}, "for another host name: name in OPERATOR_BASE_URL the host"),
    ],
)
async def test_a_certificate_that_is_wrong_is_called_that(
    serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool, certificate: dict, sentence: str
) -> None:
    port = await serve(server_context(tmp_path, **certificate))
    if trusted:
        trusting = ssl.create_default_context()
        LOAD(trusting, tmp_path / "server.pem")
        monkeypatch.setattr("httpx2.create_ssl_context", lambda **_: trusting)
    assert sentence in await fault_of(f"https://127.0.0.1:{port}/v1")


LOAD = ssl.SSLContext.load_verify_locations  # what the tests do without otherwise


async def test_tls_where_there_is_none_and_none_where_there_is(serve: Callable, tmp_path: Path) -> None:
    said = await fault_of(f"https://127.0.0.1:{await serve(None)}/v1")
    assert "does not speak TLS as expected: check OPERATOR_BASE_URL, which begins with http://" in said
    said = await fault_of(f"http://127.0.0.1:{await serve(server_context(tmp_path))}/v1")
    assert said.endswith("if it speaks TLS, OPERATOR_BASE_URL has to begin with https://.")


async def test_a_host_name_that_nobody_knows() -> None:
    assert "because its host name is not known: check SEARCH_URL." in await fault_of("http://no.invalid/v1", "Search")


WRONG_KEYS = {
    "line break": ["sk-a\nb", "sk-a\n", "\r\nsk-a", "sk-a\r"],
    "placeholder": [
        "…",
        "sk-…",
        "...",
        "sk-...abcd",
        "<your key>",
        "YOUR_API_KEY",
        "your-key",
        "changeme",
        "$KEY",
        "{key}",
        *("sk-***", "sk-xxxxxxxx", "sk-[REDACTED]", "placeholder", "%KEY%", "sk-your-key-here"),
    ],
    "quotation marks": ['"sk-a"', "'sk-a'", 'sk-a"'],
    "the word before it": [
        *("Bearer sk-a", "bearer  sk-a", "Authorization: Bearer sk-a", "api-key: sk-a", "OPERATOR_API_KEY=sk-a"),
    ],
    "white space": [" sk-a", "sk-a\t", "sk a", "sk-a\u00a0"],
    "U+": ["sk-ä", "sk-\u200ba", "sk-\0", "ｓｋ"],
    "is blank": [" ", "\n"],
}


@pytest.mark.parametrize("fault", WRONG_KEYS)
@pytest.mark.parametrize("variable", ["OPERATOR_API_KEY", "OPERATOR_API_KEY_STRONG", "SEARCH_API_KEY"])
def test_what_cannot_be_a_key_is_one_sentence_that_names_the_variable(variable: str, fault: str) -> None:
    given = environ("http://127.0.0.1:9/v1", SEARCH_URL="http://127.0.0.1:9/search", SEARCH_API_KEY=KEY)
    strong = {"strong": {"base_url": "http://127.0.0.1:10/v1"}}
    for key in WRONG_KEYS[fault]:
        with pytest.raises(OperatorConfigError) as raised:
            OperatorPool.from_env({**given, "OPERATOR_API_KEY_STRONG": KEY, variable: key}, endpoints=strong)
        assert str(raised.value).startswith(f"{variable} ")
        assert fault in str(raised.value)
        assert "\n" not in str(raised.value)
        assert "sk-" not in str(raised.value)


@pytest.mark.parametrize("key", ["none", "EMPTY", "x", "-", "sk-proj-A1_b-c", "a.b.c==", "my-token", "yourself", "key"])
def test_any_word_can_be_a_key(key: str) -> None:
    OperatorPool.from_env({**environ("http://127.0.0.1:9/v1"), "OPERATOR_API_KEY": key})


@pytest.mark.parametrize("ending", ["/chat/completions", "/chat/completions/", "/completions"])
def test_the_url_of_the_completions_is_not_the_base_url(ending: str) -> None:
    with pytest.raises(OperatorConfigError, match=r"^OPERATOR_BASE_URL .*: leave out /chat/completions\.$"):
        OperatorPool.from_env(environ(f"http://127.0.0.1:9/v1{ending}"))


@pytest.mark.parametrize(
    "url", ["'http://h/v1'", '"http://h/v1"', "http://a b/v1", "http://a\tb/v1", "http://…/v1", "http://<h>"]
)
def test_a_url_with_quotes_blanks_or_gaps_to_fill_is_refused(url: str) -> None:
    with pytest.raises(OperatorConfigError, match=r"^OPERATOR_BASE_URL must be an http:// or https:// URL"):
        OperatorPool.from_env(environ(url))
