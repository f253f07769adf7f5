"""What can be wrong with a source of questions."""


class DataError(ValueError):
    """Data that cannot be used: one sentence that says what to do."""
