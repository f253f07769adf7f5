"""The pages for one user on this machine: a server on a free port, and a thread that follows the files."""

import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from workflow_r1.errors import reason_of
from workflow_r1.viewer.app import create_app
from workflow_r1.viewer.index import Index

_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.5
logger = logging.getLogger(__name__)


@contextmanager
def followed(index: Index) -> Iterator[None]:
    """Meanwhile a thread keeps the index up to date."""
    ended = threading.Event()

    def follow() -> None:
        said = ""
        while not ended.is_set():
            try:
                index.update()
            except Exception as error:  # a full disk, say: what is shown stays, and the next look may succeed
                if said != (said := reason_of(error)):
                    logger.warning("The index could not be brought up to date: %s.", said)
            ended.wait(_LOOK_SECONDS)

    thread = threading.Thread(target=follow, name="index", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=2)


def serve(roots: list[Path], announce: Callable[[str], None], browser: bool) -> None:
    """Serve the pages until Ctrl-C; `announce` gets their address."""
    index = Index(roots)
    listening = socket.create_server((_HOST, 0))
    port = listening.getsockname()[1]
    app = create_app(index, {f"{_HOST}:{port}", f"localhost:{port}"})
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False))
    address = f"http://{_HOST}:{port}/"
    with followed(index):
        announce(address)
        if browser and _has_display():
            webbrowser.open(address)  # the socket listens already
        with suppress(KeyboardInterrupt):
            server.run([listening])


def _has_display() -> bool:
    """Whether a browser would have a window of its own: one for the terminal would take it from this command."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
