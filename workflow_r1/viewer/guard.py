"""Who may read the pages: this machine's browser, from the pages' own address, and nobody through another site."""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI middleware that refuses what another site could send, and has browsers keep what is sent to itself.

    A name of another site's that resolves to this machine (DNS rebinding) comes with that name as its host.

    Args:
        hosts: `name:port` of the pages' own addresses.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, set(hosts)
        self._origins = {f"http://{host}" for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = PlainTextResponse("These pages are for the browser of this machine.\n", 403)
        await (self._app if self._is_own(scope) else refused)(scope, receive, send_with_headers)

    def _is_own(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        return headers.getlist("host") in [[host] for host in self._hosts] and origin in (None, *self._origins)
