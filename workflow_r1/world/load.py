"""What a server was asked at once and within a minute, so that a client's limits can be checked from the other side."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Load:
    """The highest load so far.

    Attributes:
        max_in_flight: requests that were being served at once.
        max_per_minute: requests that arrived within any 60 seconds.
    """

    def __init__(self) -> None:
        self.max_in_flight = self.max_per_minute = 0
        self._in_flight = 0
        self._arrivals: deque[float] = deque()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request, which is in flight while the context is open."""
        now = time.monotonic()
        self._arrivals.append(now)
        while self._arrivals[0] <= now - 60:
            self._arrivals.popleft()
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        self.max_per_minute = max(self.max_per_minute, len(self._arrivals))
        try:
            yield
        finally:
            self._in_flight -= 1
