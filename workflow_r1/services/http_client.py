"""The HTTP client of whoever asks an endpoint: pooled, on aiohttp (httpx is slow with hundreds of calls at once)."""

from typing import TYPE_CHECKING

from workflow_r1.services.proxies import proxy_for

if TYPE_CHECKING:
    import httpx2


def http_client(url: str, timeout: float) -> "httpx2.AsyncClient":
    """A client for requests to `url`, through a proxy where the environment names one for it.

    Args:
        timeout: seconds, of each of connecting, writing, reading and waiting for a connection.

    Raises:
        ProxyError: that proxy cannot be used.
    """
    import httpx2  # both are slow to import
    from openai import DefaultAioHttpClient

    if proxy := proxy_for(url):
        return DefaultAioHttpClient(timeout=timeout, proxy=proxy.url)
    # Without trust in the environment there is no proxy; certificates are looked for there all the same.
    return DefaultAioHttpClient(timeout=timeout, trust_env=False, verify=httpx2.create_ssl_context())
