"""How the command line prints: tables that fit the terminal, numbers as people read them, JSON for programs.

What comes out of files is never trusted: control characters, with which a name could take over a
terminal, are made visible.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sda_daemon.errors import SdaError
from sda_daemon.plain_json import json_bytes
from sda_daemon.wording import LONGEST_QUOTE, MOST_LINES, and_more, clean, listed, real, shortened

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

UNLIMITED_WIDTH = 100_000
"""Of a pipe: whoever reads it wants whole lines."""
LONGEST_CELL = 300
"""Most characters in a cell of a table: one long name must not make every line of a list long."""
LONGEST_FIELD = 600
"""Most characters of a value beside its name."""
LONGEST_LINE = 4_000
"""Most characters in a line of a message."""
_GAP = 2


class RefusedToAskError(SdaError):
    """There is no terminal to ask on, and `--yes` was not given."""


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
    """Print JSON that any program reads, in UTF-8 whatever the terminal's encoding; see `presentable`."""
    typer.echo(json_bytes(value))


def print_file_path(path: Path) -> None:
    """Print a path: for a program byte for byte, for a person without control characters."""
    typer.echo(clean(path) if sys.stdout.isatty() else os.fsencode(path))


def print_list(
    lines: Sequence[str],
    how: str = "",
    *,
    everything: bool = False,
    to: Callable[[str], None] | None = None,
    most: int = MOST_LINES,
) -> None:
    """Print the first of many lines, and how many more there are: no list pushes the rest out of sight.

    Args:
        lines: all of them.
        how: what to type to see the rest.
        everything: whether all are wanted.
        to: prints one line; by default `say`, on stdout.
        most: how many are printed unasked.
    """
    for line in lines if everything else listed(lines, how, most, indent=""):
        (to or say)(line)


def note(text: str) -> None:
    """Tell a person something that is not the result: on stderr, so that pipes stay clean."""
    typer.echo("\n".join(clean(line, LONGEST_LINE) for line in text.split("\n")), err=True)


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


def human_size(size_bytes: object) -> str:
    """Return a size such as `12.6 MB`; what is no size is a dash."""
    size = real(size_bytes)
    if size is None or not 0 <= size < math.inf:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB" if size < 1e6 else f"{size:.4g} TB"


def human_total(sizes: Iterable[object]) -> str:
    """Return the sum of sizes; what is no size does not count."""
    known = (real(size) for size in sizes)
    return human_size(sum(size for size in known if size is not None and 0 <= size < math.inf))


def human_number(value: object) -> str:
    """Return a loss or another measured number with four digits; a missing one as a dash."""
    number = real(value)
    return "-" if number is None else f"{number:.4g}"


def human_count(value: object) -> str:
    """Return a whole number; what is no number, or none that anything could be counted to, is a dash."""
    number = real(value)
    if number is None or not math.isfinite(number):
        return "-"
    return str(value) if isinstance(value, int) and abs(value) < 10**15 else human_number(number)


def human_date(text: object) -> str:
    """Return an ISO 8601 date as `2026-03-01 09:30` in local time; what is no date is returned as it is."""
    if not isinstance(text, str) or not text:
        return "-"
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone()
    except (ValueError, OverflowError, OSError):  # no date, or one that the calendar ends before
        return clean(text, LONGEST_CELL)
    return moment.replace(tzinfo=None).isoformat(" ", "minutes")


def human_duration(seconds: object) -> str:
    """Return a duration such as `42 s`, `3 min 20 s` or `1 h 02 min`; what is none is a dash."""
    value = real(seconds or 0)
    if value is None or not 0 <= value < math.inf:
        return "-"
    if value < 10:
        return f"{value:.1f} s"
    if value >= 1e12:
        return f"{value / 3600:.4g} h"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def counted(count: object, thing: str, things: str = "") -> str:
    """Return `1 model`, `3 models`."""
    return f"{human_count(count)} {thing if count == 1 else things or thing + 's'}"


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
    """Return a table that fits into `width`: texts are cut first, then the least important columns left out.

    In a terminal that is too narrow even for the others, these are cut too.
    """
    from rich.cells import cell_len

    cells = [[clean(cell, LONGEST_CELL) for cell in row] for row in rows]
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
    for _ in range(-spare):  # not even so: then every column gives way
        widest = max(shown, key=lambda index: widths[index])
        widths[widest] = max(1, widths[widest] - 1)
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

    known = [(clean(name, LONGEST_QUOTE), shortened(value, LONGEST_FIELD)) for name, value in fields]
    margin = indent + max((len(name) for name, _ in known), default=0) + _GAP
    room = max(20, width - margin)
    lines: list[Text] = []
    for name, value in known:
        parts = [part for line in listed(value.split("\n")) for part in textwrap.wrap(clean(line), room) or [""]]
        for number, part in enumerate(parts):
            head = f"{' ' * indent}{name if number == 0 else '':<{margin - indent}}"
            lines.append(Text.assemble((head, "dim"), part))
            lines[-1].rstrip()
    return _joined(lines)


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    how: str = "",
    most: int | None = None,
) -> None:
    """Print a table that fits the console; see `fitting_table`.

    Args:
        console: where to.
        columns: its columns.
        rows: its cells.
        how: what to type to see the rows that are left out.
        most: how many rows are printed; all without it.
    """
    shown = rows if most is None else rows[:most]
    console.print(fitting_table(columns, shown, console.width))
    if len(shown) < len(rows):
        console.print(and_more(len(rows) - len(shown), how), soft_wrap=True)


def print_fields(console: Console, fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values; see `field_lines`."""
    console.print(field_lines(fields, console.width))


def print_wrapped(console: Console, text: str, style: str = "", indent: int = 2) -> None:
    """Print a text on as many lines as it needs."""
    import textwrap

    for line in textwrap.wrap(clean(text, LONGEST_LINE), max(20, console.width - indent)):
        console.print(" " * indent + line, style=style or None)
