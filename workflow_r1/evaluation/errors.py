"""What can go wrong with an evaluation, apart from wrong answers."""

from workflow_r1.errors import UserError


class EvaluationError(UserError):
    """Why an evaluation cannot start or go on: one sentence that says what to do."""


class PolicyEndpointError(EvaluationError):
    """The policy's endpoint could not serve a request; the message never holds the key.

    Attributes:
        status: the HTTP status, that of an error in a reply too; None where there is none.
        is_bad_reply: the response was no reply, and the next one may be.
    """

    def __init__(self, message: str, status: int | None = None, *, is_bad_reply: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_bad_reply = is_bad_reply


class ContextLengthError(PolicyEndpointError):
    """The conversation no longer fits into the policy's context."""
