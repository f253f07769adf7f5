"""What runs on this machine is asked directly, whatever the proxy variables hold; the rest as they say."""

import os
import socket
from urllib.request import getproxies_environment, proxy_bypass_environment

import httpx
import httpx2
import psutil
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workflow_r1.services import proxies
from workflow_r1.services.proxies import Proxy, ProxyError, exempt_this_machine, proxy_for

OWN_ADDRESSES = [
    address.address.partition("%")[0]
    for addresses in psutil.net_if_addrs().values()
    for address in addresses
    if address.family in (socket.AF_INET, socket.AF_INET6)
]
OWN = ["localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname().lower(), *OWN_ADDRESSES]
OTHER_NAMES = [
    *("127.1", "127.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "::ffff:127.0.0.1", "::ffff:7f00:1", "::"),
    *("ip6-localhost", "ip6-loopback", "localhost.localdomain", "localhost6", "LocalHost.LocalDomain."),
]
EXEMPT = [
    *("llm.example:443", "LLM.example.", ".llm.example.", "example.", "*example", "*llm.example", "*.example:443"),
    *("example:443", "llm.example.:443", ".example", "*.llm.example"),
]
NOT_EXEMPT = [
    *("llm.example:80", "lm.example", "*lm.example", "llm.example.com", "llm", "*.", ".", "x.llm.example"),
    *(":443", "*:443"),
]
ABSENT = ["none", "off", "None", "OFF", "false", "direct", "no", "null"]
NO_URLS = [
    *("http//p:1", "https//user:secret@p", "http:/p:1", "http:p:1", "p:x", "p:99999", "p:0", "http://p:-1", "<proxy>"),
    *("${PROXY}", "http://http://p:1", "htp://p:1", "'p:1'", "p:1;q:1", "http://none", "http://none:80", "/p", "[::1"),
]
MALFORMED = [
    "[::1]",
    "[::1]:80",
    "localhost; 127.0.0.1",
    "http://x/",
    "*.x,,",
    "%%%",
    "fd00::/8",
    "::/x",
    ":",
    "a:b",
    "…",
]


def url_of(host: str) -> str:
    return f"http://[{host}]:8000/v1" if ":" in host else f"http://{host}:8000/v1"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "Http_Proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["http://proxy.example:3128", "socks5://proxy.example", "no proxy at all"])
def test_this_machine_is_asked_directly(variable: str, proxy: str) -> None:
    for host in [*OWN, "127.1.2.3", "LOCALHOST", "localhost.", "policy.localhost", *OTHER_NAMES]:
        assert proxy_for(url_of(host), {variable: proxy}) is None


def test_this_machine_is_known_by_its_hosts_file_and_its_domain(tmp_path, monkeypatch):
    (tmp_path / "hosts").write_text(
        "127.0.1.1 Node7.corp.example node7 # me\n::1 six\n\n10.9.8.7 gateway\n127.0.0.1\n#\n"
    )
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\nsearch Lab.example. other.example\n")
    monkeypatch.setattr(proxies, "_HOSTS_FILE", tmp_path / "hosts")
    monkeypatch.setattr(proxies, "_RESOLVER_FILE", tmp_path / "resolv.conf")
    monkeypatch.setattr(socket, "gethostname", lambda: "Box")
    monkeypatch.setattr(proxies, "_own_hosts", proxies._own_hosts.__wrapped__)
    environ = {"ALL_PROXY": "http://p:1"}
    for host in (
        "node7",
        "node7.corp.example",
        "box",
        "BOX.lab.example.",
        "127.0.1.1",
        *(["six"] if "::1" in OWN else []),
    ):
        assert proxy_for(f"http://{host}:8000/v1", environ) is None
    for host in ("gateway", "10.9.8.7", "box.other.example", "corp.example", "lab.example"):
        assert proxy_for(f"http://{host}:8000/v1", environ) is not None
    exempt_this_machine(environ)
    assert {"node7.corp.example", "box", "box.lab.example"} <= set(environ["no_proxy"].split(","))
    (tmp_path / "hosts").write_text("".join(f"127.0.0.1 ad{i}.example\n" for i in range(9_999)))
    (tmp_path / "resolv.conf").unlink()
    environ = {"ALL_PROXY": "http://p:1"}
    exempt_this_machine(environ)
    assert len(environ["NO_PROXY"]) < 5_000


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, ("HTTPS_PROXY", "http://p:1")),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, ("https_proxy", "http://p:1")),
        ({"Https_Proxy": " p:1 "}, ("Https_Proxy", "http://p:1")),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "https://q:1"}, ("HTTPS_PROXY", "https://q:1")),
        ({"ALL_PROXY": "http://u:secret@p:1"}, ("ALL_PROXY", "http://u:secret@p:1")),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"https_proxy": "", "HTTPS_PROXY": "http://p:1"}, None),  # as curl has it
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.b; *"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "llm.example"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "x ,  .EXAMPLE"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*.example"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "https://llm.example:443/v1"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "llm.example:444"}, ("HTTPS_PROXY", "http://p:1")),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "m.example"}, ("HTTPS_PROXY", "http://p:1")),
        *[({"HTTPS_PROXY": "http://p:1", "no_proxy": entry}, None) for entry in EXEMPT],
        *[({"HTTPS_PROXY": "http://p:1", "no_proxy": entry}, ("HTTPS_PROXY", "http://p:1")) for entry in NOT_EXEMPT],
    ],
)
def test_what_is_outside_follows_the_environment(environ: dict[str, str], expected: tuple[str, str] | None) -> None:
    for url in ("https://llm.example:443/v1", "https://LLM.example./v1"):
        assert proxy_for(url, environ) == (Proxy(*expected) if expected else None)


@pytest.mark.parametrize("entry", ["10.1.2.3", "10.0.0.0/8", "10.1.0.0/255.255.0.0", "http://10.1.2.3:80/"])
def test_addresses_and_networks_are_exempt(entry: str) -> None:
    environ = {"ALL_PROXY": "http://p:1", "NO_PROXY": entry}
    assert proxy_for("http://10.1.2.3:80/v1", environ) is None
    assert proxy_for("http://[::ffff:10.1.2.3]/v1", environ) is None
    assert proxy_for("http://11.1.2.3:80/v1", environ) is not None
    assert proxy_for("http://[fd00::9]/v1", {"ALL_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("socks5://user:secret@p:1", "all_proxy names a SOCKS proxy, which is not supported: set HTTPS_PROXY to an"),
        ("SOCKS5H://p:1", "or name llm.example in NO_PROXY to reach it without one."),
        ("http://user:secret@p:port", "all_proxy is not the URL of a proxy, such as http://proxy.example:3128:"),
        ("http://", "correct or unset it."),
        *[(word, f"all_proxy is {word!r}, which clients take for a proxy's host: unset it to") for word in ABSENT],
        *[(value, "all_proxy is not the URL of a proxy, such as http://proxy.example:3128:") for value in NO_URLS],
        ("ftp://secret@p", "all_proxy is not the URL of a proxy"),
        ("http://p q secret", "all_proxy is not the URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_sentence_without_its_password(value: str, sentence: str) -> None:
    with pytest.raises(ProxyError) as raised:
        proxy_for("https://llm.example/v1", {"all_proxy": value})
    assert sentence in str(raised.value)
    assert "secret" not in str(raised.value) + repr(Proxy("all_proxy", value))


def test_without_a_proxy_the_environment_stays_as_it_is() -> None:
    for environ in ({}, {"NO_PROXY": "[x"}, {"HTTP_PROXY": " ", "no_proxy": "a;b"}):
        before = dict(environ)
        exempt_this_machine(environ)
        assert environ == before


def test_what_no_proxy_held_stays_in_words_that_all_clients_know() -> None:
    given = {"No_Proxy": "a.b;http://c.d:80/ *.e.f", "NO_PROXY": "[fd00::2]:80, 10.1.2.3/8,fd00::/8,münchen.example,*."}
    environ = {"HTTPS_PROXY": "http://p:1", **given}
    exempt_this_machine(environ)
    assert set(environ) == {"HTTPS_PROXY", "no_proxy", "NO_PROXY"}
    entries = environ["no_proxy"].split(",")
    assert entries[:5] == ["a.b", "c.d:80", ".e.f", "fd00::2", "10.0.0.0/8"]
    assert set(OWN) <= set(entries)
    assert set(environ["NO_PROXY"].split(",")) - set(entries) == {"fd00::/8", "münchen.example"}  # httpx fails on them
    again = dict(environ)
    exempt_this_machine(again)
    assert again == environ


def test_a_star_among_others_exempts_everything() -> None:
    environ = {"all_proxy": "http://p:1", "NO_PROXY": "localhost, *"}
    exempt_this_machine(environ)
    assert environ["no_proxy"] == "*"


@settings(max_examples=40)
@given(st.one_of(st.text(), st.lists(st.sampled_from([*MALFORMED, "llm.example", "10.0.0.0/8"])).map(",".join)))
@example(",".join(MALFORMED))
def test_every_client_then_asks_this_machine_directly(no_proxy: str) -> None:
    """Those that verl, vLLM, Ray and the Hub's client are built on."""
    no_proxy = no_proxy.replace("\0", "").encode(errors="ignore").decode()
    environ = {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    exempt_this_machine(environ)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        assert httpx._utils.get_environment_proxies()
        for host in OWN:
            assert proxy_bypass_environment(host, getproxies_environment())  # urllib's and aiohttp's way
            assert requests.utils.get_environ_proxies(url_of(host)) == {}
        for library in (httpx, httpx2):
            proxies = library._utils.get_environment_proxies()
            patterns = sorted((library._utils.URLPattern(key), proxy) for key, proxy in proxies.items())
            for host in OWN:
                assert next(proxy for pattern, proxy in patterns if pattern.matches(library.URL(url_of(host)))) is None


def test_a_socks_proxy_that_has_no_use_is_taken_out_and_no_other() -> None:
    http = {"HTTP_PROXY": "http://p:1", "https_proxy": "http://p:1"}
    for socks in ({"ALL_PROXY": "socks5://p:1"}, {"all_proxy": " SOCKS5H://p:1", "ALL_PROXY": "x"}):
        environ = http | socks
        exempt_this_machine(environ)
        assert set(environ) == {*http, "no_proxy", "NO_PROXY"}
        environ = {"HTTP_PROXY": "http://p:1"} | socks
        exempt_this_machine(environ)
        assert set(environ) == {"HTTP_PROXY", *socks, "no_proxy", "NO_PROXY"}
    environ = {**http, "ALL_PROXY": "http://p:1"}
    exempt_this_machine(environ)
    assert "ALL_PROXY" in environ
