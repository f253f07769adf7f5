"""The HTTP client of whoever asks an endpoint: pooled, on aiohttp (httpx is slow with hundreds of calls at once)."""

import os
from functools import cache
from typing import TYPE_CHECKING

from workflow_r1.services.proxies import proxy_for

if TYPE_CHECKING:
    import ssl

    import httpx2


def http_client(url: str, timeout: float) -> "httpx2.AsyncClient":
    """A client for requests to `url`, through a proxy where the environment names one for it.

    Args:
        timeout: seconds, of each of connecting, writing, reading and waiting for a connection.

    Raises:
        ProxyError: that proxy cannot be used.
    """
    from openai import DefaultAioHttpClient  # slow to import

    if proxy := proxy_for(url):
        return DefaultAioHttpClient(timeout=timeout, proxy=proxy.url)
    # Without trust in the environment there is no proxy; certificates are looked for there all the same.
    return DefaultAioHttpClient(
        timeout=timeout,
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
