"""The base of every error that a user can have caused, and foreign ones in words that fit into its sentence."""

_LONGEST_REASON = 300  # characters


class UserError(Exception):
    """Something that a user can put right; the message is one sentence that says how.

    A command prints the message alone and ends with exit code 1. Not a `ValueError`, so that pydantic hands it on as it
    stands.
    """


def reason_of(error: BaseException) -> str:
    """What a foreign error says, in one line without control characters, a full stop or more than 300 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    line = "".join(letter for letter in words if letter.isprintable())
    return (line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}…").rstrip(".")
