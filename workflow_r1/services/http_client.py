"""The HTTP client of whoever asks an endpoint: pooled, on aiohttp (httpx is slow with hundreds of calls at once)."""

import os
from functools import cache
from typing import TYPE_CHECKING

from workflow_r1.services.proxies import proxy_for

if TYPE_CHECKING:
    import ssl

    import httpx2


CONNECT_SECONDS = 5.0  # as openai's own client has it


def http_client(url: str, timeout: float) -> "httpx2.AsyncClient":
    """A client for requests to `url`, through a proxy where the environment names one for it.

    Args:
        timeout: seconds, of each of writing, reading and waiting for a connection; of connecting too, but no more than
            five, since an address at which nothing is never answers.

    Raises:
        ProxyError: that proxy cannot be used.
    """
    import httpx2  # both are slow to import
    from openai import DefaultAioHttpClient

    timeouts = httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
    if proxy := proxy_for(url):
        return DefaultAioHttpClient(timeout=timeouts, proxy=proxy.url)
    # Without trust in the environment there is no proxy; certificates are looked for there all the same.
    return DefaultAioHttpClient(
        timeout=timeouts,
        trust_env=False,
        verify=_certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
    )


@cache
def _certificates(file: str | None, folder: str | None) -> "ssl.SSLContext":
    """The trusted certificates, loaded once a process: each time takes 20 ms.

    Args:
        file: SSL_CERT_FILE, which is looked for in the environment; here it tells one context from another.
        folder: SSL_CERT_DIR, likewise.
    """
    import httpx2

    return httpx2.create_ssl_context()
