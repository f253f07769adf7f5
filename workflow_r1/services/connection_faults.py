"""Why a connection could not be made or was lost: names, proxies, certificates."""

import ssl
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from workflow_r1.services.proxies import Proxy, ProxyError, proxy_for

# Of OpenSSL's X509_V_ERR_...
_EXPIRED, _NOT_YET_VALID, _SELF_SIGNED = (10,), (9,), (18, 19)
_OTHER_HOST = (62, 64)

PROXY_WANTS_PASSWORD = (
    "cannot be reached: the proxy asks for a user and a password (407), which go into that variable's URL, as "
    "http://user:password@proxy.example:3128"
)


@dataclass(frozen=True)
class ConnectionFault:
    """What is wrong, as the end of a sentence whose subject is the service.

    Attributes:
        lasting: trying again does not help; somebody has to act.
    """

    text: str
    lasting: bool = False


def service_at(name: str, url: str) -> str:
    """A service as messages call it: what it is, where it is, and which variable's proxy leads there."""
    proxy = _usable_proxy(url)
    return f"{name} {url}" + (f" (through the proxy of {proxy.variable})" if proxy else "")


def connection_fault(error: Exception, url: str, url_setting: str) -> ConnectionFault:
    """What is wrong where a request to `url` raised `error` and got no reply.

    Args:
        url_setting: the setting that `url` comes from.
    """
    import aiohttp  # both are slow to import, and only needed here
    import httpx2

    causes = list(_chain(error))

    def found(kind: type[BaseException]) -> BaseException | None:
        return next((cause for cause in reversed(causes) if isinstance(cause, kind)), None)  # the innermost

    if unusable := found(ProxyError):
        return ConnectionFault(f"cannot be reached: {str(unusable).removesuffix('.')}", lasting=True)
    if refused := found(aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(refused.status)  # type: ignore[attr-defined]
    unreachable = found(aiohttp.ClientConnectorError)
    host = unreachable.host if isinstance(unreachable, aiohttp.ClientConnectorError) else None
    if host and host != urlsplit(url).hostname and _usable_proxy(url):
        return ConnectionFault(
            "cannot be reached, because the proxy cannot: correct or unset that variable, or name the host in NO_PROXY"
        )
    if isinstance(untrusted := found(ssl.SSLCertVerificationError), ssl.SSLCertVerificationError):
        return ConnectionFault(_untrusted(untrusted, url_setting), lasting=True)
    if found(ssl.SSLError) and not found(ssl.SSLEOFError):
        return ConnectionFault(
            f"does not speak TLS as expected: check {url_setting}, which begins with http:// where there is no TLS"
        )
    if found(aiohttp.ClientConnectorDNSError):
        return ConnectionFault(f"cannot be reached, because its host name is not known: check {url_setting}")
    if found(httpx2.TooManyRedirects):
        return ConnectionFault(f"leads in circles: set {url_setting} to the address that answers", lasting=True)
    if found(zlib.error):
        return ConnectionFault("sent something that is not a reply")
    # The aiohttp transport reports every connection fault as a timeout, so the cause decides.
    if unreachable or found(aiohttp.ConnectionTimeoutError):
        return ConnectionFault(f"cannot be reached: check that it runs and that {url_setting} is right")
    if isinstance(error, TimeoutError) or found(aiohttp.ServerTimeoutError):
        return ConnectionFault("did not answer in time")
    if found(aiohttp.ServerDisconnectedError) and url.startswith("http://"):
        return ConnectionFault(f"dropped the connection: if it speaks TLS, {url_setting} has to begin with https://")
    return ConnectionFault("dropped the connection")


def _refused_by_proxy(status: int) -> ConnectionFault:
    if status == 407:
        return ConnectionFault(PROXY_WANTS_PASSWORD, lasting=True)
    return ConnectionFault(
        f"cannot be reached: the proxy answered {status}; correct or unset that variable, or name the host in NO_PROXY",
        lasting=status in (401, 403),
    )


def _untrusted(error: ssl.SSLCertVerificationError, url_setting: str) -> str:
    code, reason = error.verify_code, error.verify_message
    if code in _EXPIRED + _NOT_YET_VALID:
        state = "has expired" if code in _EXPIRED else "is not valid yet"
        return f"has a certificate that {state}: have it renewed, or set this machine's clock"
    if code in _OTHER_HOST:
        return f"has a certificate for another host name: name in {url_setting} the host that it was made for"
    kind = "is self-signed" if code in _SELF_SIGNED else f"cannot be checked ({reason})"
    return (
        f"has a certificate that {kind}, so it is not trusted: set SSL_CERT_FILE to a file with that certificate, or "
        "with the authority's that signed it"
    )


def _usable_proxy(url: str) -> Proxy | None:
    try:
        return proxy_for(url)
    except ProxyError:  # said where it is to be used
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
