"""How the command line prints: tables that fit the terminal, numbers as people read them, JSON for programs.

What comes out of files is never trusted: control characters, with which a name could take over a
terminal, are made visible.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from sda_daemon.errors import SdaError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_HALVES = re.compile("[\ud800-\udfff]")
"""What stands for a byte that is no text, or is half of a character: no encoding has it."""
UNLIMITED_WIDTH = 100_000
"""Of a pipe: whoever reads it wants whole lines."""
_GAP = 2


class RefusedToAskError(SdaError):
    """There is no terminal to ask on, and `--yes` was not given."""


def clean(text: object) -> str:
    """Return a text on one line, with control characters replaced by something visible."""
    return "".join(_visible(char) for char in str(text))


def _visible(char: str) -> str:
    if char in "\n\r\t":
        return " "
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char


def make_console(*, stderr: bool = False) -> Console:
    """Return what human output is printed on: as wide as the terminal, or unlimited in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    is_narrow = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if is_narrow else UNLIMITED_WIDTH,
    )


def print_json(value: Any) -> None:
    """Print JSON that any program reads: a number that is infinite or none becomes null, half a character a sign."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    typer.echo(_HALVES.sub("\N{REPLACEMENT CHARACTER}", text))


def finite(value: Any) -> Any:
    """Return a JSON value in which every NaN and infinity is None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def note(text: str) -> None:
    """Tell a person something that is not the result: on stderr, so that pipes stay clean."""
    typer.echo("\n".join(clean(line) for line in text.split("\n")), err=True)


def say(text: str) -> None:
    """Print one line of the result."""
    typer.echo(clean(text))


def ask(question: str, *, yes: bool) -> bool:
    """Ask a yes/no question on the terminal; `yes` answers it beforehand.

    Raises:
        RefusedToAskError: there is no terminal to ask on.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise RefusedToAskError("this needs a confirmation, and there is no terminal to ask on", "Add --yes")
    return typer.confirm(question, err=True)


# --- values as people read them -------------------------------------------------------------------


def human_size(size_bytes: float | None) -> str:
    """Return a size such as `12.6 MB`."""
    size = float(size_bytes or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_number(value: float | None) -> str:
    """Return a loss or another measured number with four digits; a missing one as a dash."""
    return "-" if value is None else f"{value:.4g}"


def human_date(text: str | None) -> str:
    """Return an ISO 8601 date as `2026-03-01 09:30` in local time; what is no date is returned as it is."""
    if not text:
        return "-"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return clean(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone()
    return moment.strftime("%Y-%m-%d %H:%M")


def human_duration(seconds: float | None) -> str:
    """Return a duration such as `42 s`, `3 min 20 s` or `1 h 02 min`."""
    value = float(seconds or 0)
    if not math.isfinite(value):
        return "-"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def counted(count: int, thing: str, things: str = "") -> str:
    """Return `1 model`, `3 models`."""
    return f"{count} {thing if count == 1 else things or thing + 's'}"


# --- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        title: its head.
        right: whether numbers are aligned on the right.
        least: width that it can be cut down to; 0 means that it is never cut.
        rank: the column with the highest rank goes first when the terminal is too narrow; 0 never goes.
        style: of its cells.
    """

    title: str
    right: bool = False
    least: int = 0
    rank: int = 0
    style: str = ""


def fitting_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int) -> Text:
    """Return a table that fits into `width`: texts are cut first, then the least important columns left out."""
    from rich.cells import cell_len

    cells = [[clean(cell) for cell in row] for row in rows]
    natural = [
        max([cell_len(column.title), *(cell_len(row[index]) for row in cells)]) for index, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))

    def least(index: int) -> int:
        column = columns[index]
        return min(natural[index], max(column.least, cell_len(column.title))) if column.least else natural[index]

    def needed(width_of: Callable[[int], int]) -> int:
        return sum(width_of(index) for index in shown) + _GAP * (len(shown) - 1)

    while needed(least) > width and any(columns[index].rank for index in shown):
        shown.remove(max(shown, key=lambda index: columns[index].rank))
    widths = {index: least(index) for index in shown}
    spare = width - needed(lambda index: widths[index])
    while spare > 0 and any(widths[index] < natural[index] for index in shown):
        for index in shown:
            if spare > 0 and widths[index] < natural[index]:
                widths[index] += 1
                spare -= 1
    titles = [column.title for column in columns]
    lines = (
        [_line([(titles[index], widths[index], columns[index].right, "bold") for index in shown])]
        if any(titles)
        else []
    )
    lines += [
        _line([(row[index], widths[index], columns[index].right, columns[index].style) for index in shown])
        for row in cells
    ]
    return _joined(lines)


def _line(cells: Sequence[tuple[str, int, bool, str]]) -> Text:
    """Return one line of (text, width, is_right, style), without blanks at its end."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    line = Text()
    for number, (text, width, is_right, style) in enumerate(cells):
        shown = text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
        blank = " " * (width - cell_len(shown))
        line.append(" " * _GAP if number else "")
        line.append(blank if is_right else "")
        line.append(shown, style)
        line.append("" if is_right else blank)
    line.rstrip()
    return line


def _joined(lines: Sequence[Text]) -> Text:
    from rich.text import Text

    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def field_lines(fields: Iterable[tuple[str, str]], width: int, indent: int = 2) -> Text:
    """Return names and values below each other, long values wrapped."""
    import textwrap

    from rich.text import Text

    known = [(clean(name), value) for name, value in fields]
    margin = indent + max((len(name) for name, _ in known), default=0) + _GAP
    room = max(20, width - margin)
    lines: list[Text] = []
    for name, value in known:
        parts = [part for line in value.split("\n") for part in textwrap.wrap(clean(line), room) or [""]]
        for number, part in enumerate(parts):
            head = f"{' ' * indent}{name if number == 0 else '':<{margin - indent}}"
            lines.append(Text.assemble((head, "dim"), part))
            lines[-1].rstrip()
    return _joined(lines)


def print_table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table that fits the console; see `fitting_table`."""
    console.print(fitting_table(columns, rows, console.width))


def print_fields(console: Console, fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values; see `field_lines`."""
    console.print(field_lines(fields, console.width))


def print_wrapped(console: Console, text: str, style: str = "", indent: int = 2) -> None:
    """Print a text on as many lines as it needs."""
    import textwrap

    for line in textwrap.wrap(clean(text), max(20, console.width - indent)):
        console.print(" " * indent + line, style=style or None)
