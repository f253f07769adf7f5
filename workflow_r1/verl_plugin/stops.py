"""Why a run ends before its last step."""

from ray.exceptions import RayTaskError

_LONGEST_REASON = 400  # characters


class RunStopped(RuntimeError):
    """The run ended early on purpose, with its checkpoint saved; the message says why and what to do."""


class RolloutsLost(RuntimeError):
    """Too little is left of a batch of rollouts; the message says why."""


def describe(error: BaseException) -> str:
    """An exception in one line: of one that came from another process through Ray, its cause there."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    text = " ".join(f"{type(cause).__name__}: {cause}".split())
    return "".join(letter for letter in text if letter.isprintable())[:_LONGEST_REASON]
