"""The base of every error that a user can have caused."""


class UserError(Exception):
    """Something that a user can put right; the message is one sentence that says how.

    A command prints the message alone and ends with exit code 1. Not a `ValueError`, so that pydantic hands it on as it
    stands.
    """
