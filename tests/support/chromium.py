"""A headless Chromium, driven over its DevTools protocol: what the browser tests need of it, and no more."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.waiting import wait_until
from websockets.sync.client import ClientConnection, connect

_KEYS = {"Enter": ("Enter", "\r"), "/": ("Slash", "/")}


def executable() -> str:
    """Chromium's path; a test that needs it is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    return found


class Tab:
    """A page that is open.

    Attributes:
        faults: what the console said of errors and of what the page's policy refused.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.faults: list[str] = []
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.faults.append(str(parameters["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.faults.append(parameters["entry"]["text"])
        elif message["method"] == "Page.javascriptDialogOpening":
            self.faults.append(f"dialog {parameters['message']}")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, address: str) -> None:
        """Go there and wait until it is loaded."""
        self.ask("Page.navigate", url=address)
        self.loaded()

    def loaded(self) -> None:
        time.sleep(0.2)  # until what was asked for has begun
        wait_until(lambda: self.run("document.readyState") == "complete")

    def press(self, key: str) -> None:
        code, text = _KEYS.get(key, (f"Key{key.upper()}", key))
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, text=text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def follow(self, selector: str) -> None:
        """Click the first element of a CSS selector, and wait for where it leads."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self.loaded()

    def text(self) -> str:
        return self.run("document.body.innerText")


@contextmanager
def open_tab(folder: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, with its profile in `folder`."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    port_file = folder / "DevToolsActivePort"
    with subprocess.Popen(
        [executable(), *flags, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: port_file.exists() and len(port_file.read_text().split()) == 2, within=60)
            port, path = port_file.read_text().split()
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as browser:
                browser.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
                while "id" not in (answer := json.loads(browser.recv(timeout=60))):
                    pass
            target = answer["result"]["targetId"]
            with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None, proxy=None) as connection:
                yield Tab(connection)
        finally:
            process.terminate()
