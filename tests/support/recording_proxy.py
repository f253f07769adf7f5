"""A proxy on loopback that writes down what it is asked for, and answers it itself."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class RecordingProxy:
    """What was asked of it, and what it answers.

    Attributes:
        url: where it listens.
        asked: the method and the target of every request, such as `CONNECT llm.example:443`.
        credentials: the `Proxy-Authorization` of every request.
        status, body: what every request but CONNECT gets; 502 is what a proxy says that cannot reach the target.
        connect_status: what CONNECT gets.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.status, self.body, self.connect_status = 502, {}, 502


@contextmanager
def recording_proxy() -> Iterator[RecordingProxy]:
    """Run one from a thread of this process while the context is open."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proxy.asked.append(f"{self.command} {self.path}")
            proxy.credentials.append(self.headers.get("Proxy-Authorization"))
            content = json.dumps(proxy.body).encode()
            self.send_response(proxy.connect_status if self.command == "CONNECT" else proxy.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_CONNECT = answer

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy = RecordingProxy(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
