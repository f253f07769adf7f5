"""What an operator call gives back."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorResult:
    """What came of one operator call.

    Attributes:
        operator: its name; `WarningOp` where the policy named none that exists.
        text: the operator's output as it came: neutralise it before the policy reads it. For a
            failed or rejected call, a sentence that says so.
        failed: the endpoint could not serve the call; the policy is not to blame.
        rejected: the policy called an unknown operator or gave it a wrong input.
        seconds: wall-clock time of the call.
        prompt_tokens: what the endpoint counted for this call, over all samples; a reply from the
            cache counts nothing. None where it did not count every reply.
        completion_tokens: likewise.
        requests: HTTP requests made, retries included.
        retries: requests made again after a failed one.
        reasks: replies asked for again because they lacked the tag that the operator needs.
        cache_hits: completions that took no request of this call's own.
        cost: US dollars, by the prices in the settings; None where tokens that cost something were
            not counted.
        error: for a failed call, the sentence that tells the user why; it may name the endpoint,
            so it is nothing for the policy.
    """

    operator: str
    text: str
    failed: bool = False
    rejected: bool = False
    seconds: float = 0.0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    requests: int = 0
    retries: int = 0
    reasks: int = 0
    cache_hits: int = 0
    cost: float | None = 0.0
    error: str | None = None
