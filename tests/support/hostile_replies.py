"""A text that does what it can to the terminal that shows it."""

import re

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link\x1bP\x1b_ \x9b31m\x9d0;c1\x9c "
    "overwritten\rby this \b\b\x7f\x00 \u202eright to left\u202c \u2066\u2069\u200f hidden\U000e0041 half\ud800 "
    "[bold]not bold[/bold] [/] :smile: [link=file:///etc/passwd]x[/link]"
)


def obeyed(text: str) -> list[str]:
    """The characters in `text` that a terminal acts on, or that reorder or hide what is around them."""
    return re.findall(
        r"[^\n\t\x20-\x7e\xa0-\U0010ffff]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]",
        text,
    )
