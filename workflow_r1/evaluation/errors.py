"""What can go wrong with an evaluation, apart from wrong answers."""


class EvaluationError(Exception):
    """Why an evaluation cannot start or go on: one sentence that says what to do."""


class PolicyEndpointError(EvaluationError):
    """The policy's endpoint could not serve a request; the message never holds the key.

    Attributes:
        status: the HTTP status, or None where there was no response.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ContextLengthError(PolicyEndpointError):
    """The conversation no longer fits into the policy's context."""
