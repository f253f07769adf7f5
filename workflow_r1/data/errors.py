"""What can be wrong with a source of questions, or with one row of it."""

import reprlib
from enum import Enum

from workflow_r1.errors import UserError


class DataError(UserError):
    """Data that cannot be used: one sentence that says what to do."""


class Reason(str, Enum):
    """Why a row cannot be used, or is not wanted: what it has."""

    NO_QUESTION = "no question"
    NO_GOLD = "no gold answer"
    NO_GROUND_TRUTH = "no reward_model.ground_truth, nor reward_model.ground_truth.target, with gold answers"
    NO_MESSAGES = "a prompt that is no list of messages, each a role and a content, the last the user's"
    NO_DATA_SOURCE = "no text that names its data source"
    NO_EXTRA_INFO = "an extra_info that is no object"
    NOT_TEXT = "a value that is neither text nor a number"
    BOOLEAN = "true or false, which is no answer (save it as the word that is meant)"
    BYTES = "bytes, which are no text yet (decode them)"
    DECIMAL = "a decimal number, which can be written in several ways (save it as text)"
    DATE = "a date or time, which can be written in several ways (save it as text)"
    NO_PLAIN_NUMBER = "a number that is not written like that (infinite, or more than 15 digits)"
    NO_UNICODE = "text that is not Unicode (half of a surrogate pair)"
    SAVED_LIST = "a gold answer that is a list saved as text"
    UNANSWERABLE = "no gold answer but punctuation and articles, which scoring ignores"
    PROTOCOL_TAG = "a gold answer with a protocol tag"
    DUPLICATE = "duplicate question"
    IN_EVALUATION = "question of an evaluation set"


class RowError(ValueError):
    """A row that cannot be used.

    Attributes:
        reason: of which kind the fault is.
        value: what stands there, shortened; "" where nothing does.
    """

    def __init__(self, reason: Reason, value: object = None) -> None:
        self.reason = reason
        self.value = "" if value is None else _SHORT.repr(value)
        super().__init__(f"{reason.value}: {self.value}" if self.value else reason.value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
