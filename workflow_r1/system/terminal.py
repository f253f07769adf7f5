"""How every command speaks to its user: whatever a text holds, a terminal shows it and does not obey it."""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# What a terminal acts on (C0 without tab and line break, C1), what reorders or hides what is around it (bidirectional
# controls, separators, annotations, tags), and halves of surrogate pairs, which cannot be written.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """`text` with a visible character for each one that is a command to a terminal, and no text."""
    return _UNSAFE.sub(_picture, text.replace("\r\n", "\n"))


def _picture(character: re.Match[str]) -> str:
    code = ord(character[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def printable_json(content: object) -> str:
    """Indented JSON, in which such characters are escaped."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    return _UNSAFE.sub(lambda character: json.dumps(character[0])[1:-1], text)


def echo(text: str, *, err: bool = False, **style: Any) -> None:
    """Print a line of text, whatever is in it."""
    typer.secho(printable(text), err=err, **style)


def fail(message: object) -> NoReturn:
    """End the command with one sentence on standard error, and exit code 1."""
    echo(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1)


class TextConsole(Console):
    """A console for which a string is text, whatever is in it: no markup, no emoji, nothing that a terminal acts on.

    What has a style is a `rich.text.Text`. All that this project prints by rich goes through one of these.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.is_control else Segment(printable(segment.text), segment.style)
