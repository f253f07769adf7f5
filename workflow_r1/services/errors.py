"""What can go wrong with the operators, apart from the policy's own mistakes."""

from workflow_r1.errors import UserError


class OperatorConfigError(UserError):
    """The operators are set up wrongly."""


class OperatorEndpointError(UserError):
    """The endpoint could not serve a request; the message is one sentence without the key.

    Attributes:
        retryable: the same request may succeed later.
        outage: a sign that the endpoint as a whole is down, not only this request.
        retry_after: seconds that the endpoint asked to be left alone, or None.
        status: the HTTP status, that of an error in a reply too; None where there is none.
        in_reply: the response itself was a 200.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        outage: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        in_reply: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.outage = outage
        self.retry_after = retry_after
        self.status = status
        self.in_reply = in_reply


class PromptTooLongError(OperatorEndpointError):
    """The prompt does not fit into the model's context."""


class NoTextError(OperatorEndpointError):
    """The model generated something, but no text that can be read: thoughts, say, until there was no room for more."""
