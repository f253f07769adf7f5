"""Whatever a text holds, the terminal shows it and does not obey it."""

import io
import json
import re

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from support.hostile_replies import HOSTILE, obeyed

from workflow_r1.system.terminal import TextConsole, echo, fail, printable, printable_json

_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # what rich itself writes


def printed(*renderables: object, **options: object) -> str:
    file = io.StringIO()
    TextConsole(file=file, force_terminal=True, width=200).print(*renderables, **options)  # type: ignore[arg-type]
    return _STYLE.sub("", file.getvalue())


@example(HOSTILE)
@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    assert not obeyed(printable(text))
    assert printable(printable(text)) == printable(text)
    printable(text).encode()


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text + "\tcolumn\nline") == text + "\tcolumn\nline"
    assert printable("two\r\nlines") == "two\nlines"


@given(st.text(st.characters(exclude_categories=())))
def test_json_says_the_same_with_nothing_that_a_terminal_acts_on(text: str) -> None:
    written = printable_json({"answer": text})
    assert not obeyed(written)
    assert json.loads(written) == json.loads(json.dumps({"answer": text}))


def test_a_console_prints_text_in_every_form_as_text() -> None:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    for renderable in (HOSTILE, Text(HOSTILE), table):
        shown = printed(renderable, soft_wrap=True)
        assert not obeyed(shown.replace("\r\n", "\n"))
        assert "[bold]not bold[/bold] [/] :smile:" in shown


def test_a_status_line_shows_text_as_text() -> None:
    file = io.StringIO()
    console = TextConsole(file=file, force_terminal=True, width=200)
    with console.status(Text(HOSTILE)):
        pass
    assert "\x1b]0;" not in file.getvalue()
    assert "\x9b" not in file.getvalue()


def test_an_error_and_a_line_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail(HOSTILE)
    echo(HOSTILE)
    shown = capsys.readouterr()
    assert ended.value.exit_code == 1
    assert not obeyed(_STYLE.sub("", shown.err))
    assert not obeyed(shown.out)
