"""Proxies: what runs on this machine is asked directly, whatever the environment says; the rest as it says.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count in any case; a variable in lower case wins. Clients read
`NO_PROXY` each in a dialect of their own, and some fail on what others take, so it is put into words that all know.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from workflow_r1.errors import UserError

_ALWAYS_LOCAL = (
    *("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "0.0.0.0"),
    *("localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"),
)
_HOSTS_FILE, _RESOLVER_FILE = Path("/etc/hosts"), Path("/etc/resolv.conf")
_MOST_NAMES = 64  # of the hosts file: one that blocks advertisements has thousands, and an environment has a limit
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NO_PROXIES = ("none", "off", "no", "false", "direct", "null", "disabled", "disable")
_HOST_AND_PORT = re.compile(r"\.?[a-z0-9][a-z0-9._-]*(:[0-9]{1,5})?")


class ProxyError(UserError):
    """A proxy that cannot be used; one sentence that says what to do and never holds the proxy's URL."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        variable: the environment variable that names it.
        url: its address; often with a password.
    """

    variable: str
    url: str = field(repr=False)


def proxy_for(url: str, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy that requests to an http(s) URL go through; None is none.

    Raises:
        ProxyError: the environment names one that cannot be used.
    """
    target = urlsplit(url)
    host = _plain(target.hostname or "")
    if _is_local(host) or _is_exempt(host, target.port or _DEFAULT_PORTS.get(target.scheme), environ):
        return None
    for name in (f"{target.scheme}_proxy", "all_proxy"):
        if variable := _variable(name, environ):
            return Proxy(variable, _proxy_url(environ[variable], variable, target.scheme, host))
    return None


def exempt_this_machine(environ: MutableMapping[str, str]) -> None:
    """Complete `NO_PROXY` by the names and addresses of this machine, where there is a proxy at all.

    Servers of verl, Ray and vLLM talk to each other by the address of their node. What `NO_PROXY` held stays. An
    `ALL_PROXY` beside proxies for both http and https has no use, and goes where it is a SOCKS proxy: httpx fails on
    it even so.
    """
    http, https, every = (_variable(f"{scheme}_proxy", environ) for scheme in ("http", "https", "all"))
    if not (http or https or every):
        return
    if http and https and every and environ[every].strip().lower().startswith("socks"):
        for name in [name for name in environ if name.lower() == "all_proxy"]:
            del environ[name]
    entries = dict.fromkeys([*_exemptions(environ), *_own_hosts()])
    for name in [name for name in environ if name.lower() == "no_proxy"]:
        del environ[name]
    # Clients take the lower case where there are both, and httpx 0.28 fails on what is left out of it.
    environ["NO_PROXY"] = "*" if "*" in entries else ",".join(entries)
    environ["no_proxy"] = "*" if "*" in entries else ",".join(filter(_is_plain, entries))


def _variable(name: str, environ: Mapping[str, str]) -> str | None:
    """The variable that counts for `name` (in lower case), if it holds anything."""
    spellings = [spelling for spelling in environ if spelling.lower() == name]
    variable = name if name in spellings else next(iter(spellings), None)
    return variable if variable and environ[variable].strip() else None


def _proxy_url(value: str, variable: str, scheme: str, host: str) -> str:
    value = value.strip()
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        usable = False
    if usable and not re.search(r"\s", url):
        return url
    if value.lower() in _NO_PROXIES:
        raise ProxyError(f"{variable} is {value!r}, which clients take for a proxy's host: unset it to use no proxy.")
    if url.lower().startswith("socks"):
        raise ProxyError(
            f"{variable} names a SOCKS proxy, which is not supported: set {scheme.upper()}_PROXY to an HTTP proxy, or "
            f"name {host} in NO_PROXY to reach it without one."
        )
    raise ProxyError(f"{variable} is not the URL of a proxy, such as http://proxy.example:3128: correct or unset it.")


def _is_host(host: str) -> bool:
    """Whether a proxy may be called so: no placeholder, no word for none, and no scheme that lacks its colon."""
    return bool(re.fullmatch(r"[\w.-]+|[0-9a-f:.%]+", host)) and host not in (*_NO_PROXIES, "http", "https")


def _plain(host: str) -> str:
    """A host as it is looked up: `127.1`, `::ffff:127.0.0.1` and `0x7f000001` are 127.0.0.1, and `A.b.` is `a.b`."""
    host = host.lower().rstrip(".").partition("%")[0]
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return str(getattr(address, "ipv4_mapped", None) or address)
    with suppress(OSError, UnicodeError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return host


def _is_local(host: str) -> bool:
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified or host in _own_hosts()
    return host.endswith(".localhost") or host in _own_hosts()


def _is_exempt(host: str, port: int | None, environ: Mapping[str, str]) -> bool:
    names = [f".{host}", f".{host}:{port}"]  # an entry stands for the names below it too
    return any(
        entry == "*" or _in_network(host, entry) or any(name.endswith("." + entry.lstrip(".")) for name in names)
        for entry in _exemptions(environ)
    )


def _in_network(host: str, entry: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    return False


@cache
def _own_hosts() -> tuple[str, ...]:
    """What this machine is called: by itself, in its hosts file and domain, and by its interfaces' addresses.

    Nothing is looked up in the network, which may not answer.
    """
    addresses = [
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    name = _plain(socket.gethostname())
    names = [name, name.partition(".")[0], *(f"{name}.{domain}" for domain in _domains() if "." not in name)]
    return tuple(dict.fromkeys([*_ALWAYS_LOCAL, *names, *addresses, *_names_of(addresses)]))


def _domains() -> list[str]:
    """The domain that the resolver completes names by, if it has one."""
    named = re.findall(r"^\s*(?:search|domain)\s+(\S+)", _text(_RESOLVER_FILE), re.MULTILINE)
    return [_plain(domain) for domain in named[-1:]]


def _names_of(addresses: Sequence[str]) -> list[str]:
    """What the hosts file calls this machine."""
    lines = (line.partition("#")[0].split() for line in _text(_HOSTS_FILE).splitlines())
    own = [names for address, *names in filter(None, lines) if address in addresses or address.startswith("127.")]
    return [_plain(name) for names in own for name in names][:_MOST_NAMES]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _exemptions(environ: Mapping[str, str]) -> Iterable[str]:
    """The entries of `NO_PROXY`, in each of its spellings, as every client reads them."""
    for name, value in environ.items():
        if name.lower() == "no_proxy":
            for entry in re.split(r"[\s,;|\"']+", value):
                if mended := _mended(entry):
                    yield mended


def _mended(entry: str) -> str:
    """An entry without scheme, user, path, brackets, wildcard or last dot.

    `http://[::1]:80/` is `::1`, `*.a.b` and `*a.b` are `.a.b`, `a.b.:443` is `a.b:443`.
    """
    entry = entry.lower().rpartition("://")[2].rpartition("@")[2]
    with suppress(ValueError):
        return str(ipaddress.ip_network(entry, strict=False)) if "/" in entry else str(ipaddress.ip_address(entry))
    entry = entry.partition("/")[0]
    if bracketed := re.match(r"\[([0-9a-f:.]+)\]", entry):
        return bracketed[1]
    host, colon, port = entry.partition(":")
    host = host.rstrip(".") if host == "*" or not host.startswith("*") else f".{host.lstrip('*.').rstrip('.')}"
    return f"{host}{colon}{port}".rstrip(".")


def _is_plain(entry: str) -> bool:
    """Whether an entry is a name, an address or an IPv4 network."""
    with suppress(ValueError):
        return bool(ipaddress.IPv4Network(entry) if "/" in entry else ipaddress.ip_address(entry))
    return bool(_HOST_AND_PORT.fullmatch(entry))
