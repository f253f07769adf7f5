"""Text that can be encoded, whatever was in the JSON that it came in."""

import re
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer

_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can hold and no file can."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


Text = Annotated[str, AfterValidator(well_formed), PlainSerializer(well_formed)]
"""The type of a record's field that holds foreign text: whatever is assigned, the record can be written."""
