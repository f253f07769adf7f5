"""How a command ends: whatever asks it to, in order."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDINGS = [getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGQUIT") if hasattr(signal, name)]


def end_in_order() -> None:
    """Have a closed terminal, SIGTERM and SIGQUIT end a command as Ctrl-C does, by `KeyboardInterrupt`.

    A signal that was ignored when the command started stays ignored: this is how `nohup` has it outlive its terminal.
    """
    terminal = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # what is still to be said would fail on a terminal that is no longer there
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for descriptor in terminal:
                os.dup2(nowhere, descriptor)
        raise KeyboardInterrupt

    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Meanwhile nothing short of SIGKILL interrupts: a second Ctrl-C, while the first is being obeyed."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_ENDINGS)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
