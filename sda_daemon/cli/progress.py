"""A progress bar for work on many files: on a terminal only, gone when the work is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from sda_daemon.cli.output import make_console

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

LEAST_FILES = 2
"""For a single file a bar says nothing."""


class Progress:
    """Counts finished files; `say` prints a line of results above the bar."""

    def __init__(self, advance: Callable[[], None], say: Callable[[str], None]) -> None:
        self._advance = advance
        self.say = say

    def __call__(self) -> None:
        """Count one file."""
        self._advance()


@contextmanager
def progress(verb: str, total: int, *, quiet: bool = False) -> Iterator[Progress]:
    """Show a bar with rate and remaining time on the terminal's stderr, where there is one."""
    if quiet or total < LEAST_FILES or not sys.stderr.isatty():
        yield Progress(lambda: None, typer.echo)
        return
    from rich import progress as bars

    # On one terminal lines and bar share a console, so that the lines scroll above the bar.
    shared = sys.stdout.isatty()
    console = make_console(stderr=not shared)
    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None if console.width < 100 else 40),
        bars.MofNCompleteColumn(),
        _rate(),
        bars.TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        expand=console.width < 100,
    )
    with bar:
        task = bar.add_task(verb, total=total)
        yield Progress(
            lambda: bar.advance(task),
            (lambda line: console.print(line, soft_wrap=True)) if shared else typer.echo,
        )


def _rate() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s", style="cyan")

    return RateColumn()
