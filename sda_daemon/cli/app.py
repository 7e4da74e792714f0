"""All commands in one place, and how errors become messages and exit codes.

The modules of the commands import at their top only what parsing needs, so that every command starts at once.
"""

from __future__ import annotations

import io
import logging
import sys
from collections import Counter
from typing import Any, TextIO

import typer

from sda_daemon import __version__
from sda_daemon.cli import completion, config, convert, event_list, inspection, models, run, status, systemd_unit
from sda_daemon.cli.options import examples
from sda_daemon.cli.output import LONGEST_CELL, LONGEST_LINE, note
from sda_daemon.cli.streams import StandardStreams
from sda_daemon.errors import ExitCode, SdaError, exit_code_of
from sda_daemon.os_errors import explained, with_hint
from sda_daemon.wording import MOST_LINES, and_more, clean, listed

PROGRAM = "sda-daemon"
HELP = "Turns the checkpoints of small audio models into a library of finished models, in the background."
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

STATUS_EXAMPLES = examples("sda-daemon status", "sda-daemon status --json | jq .failed")
RETRY_EXAMPLES = examples("sda-daemon retry runs/rain/checkpoints/checkpoint_epoch0190.pt", "sda-daemon retry --all")

app = typer.Typer(
    name=PROGRAM,
    help=HELP,
    epilog=examples(
        "sda-daemon run --config sda-daemon.yaml",
        "sda-daemon convert runs/ --models-dir models",
        "sda-daemon models list",
        "sda-daemon inspect checkpoint_epoch0190.pt",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings=SETTINGS,
)
# One line per command, in the order in which a person meets them.
app.command("run", epilog=run.EXAMPLES)(run.run)
app.command("convert", epilog=convert.EXAMPLES)(convert.convert)
app.command("inspect", epilog=inspection.EXAMPLES)(inspection.inspect_file)
app.command("status", epilog=STATUS_EXAMPLES)(status.status)
app.command("retry", epilog=RETRY_EXAMPLES)(status.retry)
app.command("systemd-unit")(systemd_unit.systemd_unit)
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.command("events", epilog=event_list.EXAMPLES)(event_list.list_events)
app.command("completion", epilog=completion.EXAMPLES)(completion.print_script)

# Typer has its own copy of click in some versions and uses the installed one in others.
_UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version_flag: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


_root.__doc__ = HELP


class _NoticeFormatter(logging.Formatter):
    """Shows the events that a command causes as sentences; only the daemon itself logs in a structured way."""

    def format(self, record: logging.LogRecord) -> str:
        from sda_daemon import events

        name, values = _event_of(record)
        known = events.named(name)
        if known is None:
            return f"{PROGRAM}: {clean(record.getMessage(), LONGEST_LINE)}"
        details = ", ".join(
            f"{key}: {clean(value, LONGEST_CELL)}" for key, value in values.items() if value not in ("", None)
        )
        return f"{PROGRAM}: {known.when} ({details})"


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Return name and values of the event that a record is about; empty ones for another record."""
    if isinstance(record.args, tuple) and len(record.args) == 2 and isinstance(record.args[1], dict):
        return str(record.args[0]), record.args[1]
    return "", {}


class _FirstOfMany(logging.Filter):
    """Lets the first events of each kind through, and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        name, _ = _event_of(record)
        self._counts[name] += 1
        return self._counts[name] <= MOST_LINES

    def tell_rest(self) -> None:
        """Say how many were not shown."""
        for name, count in self._counts.items():
            if count > MOST_LINES:
                note(f"{PROGRAM}: {and_more(count - MOST_LINES)} of the kind {name or 'of other messages'}")


class _NoticeHandler(logging.StreamHandler[TextIO]):
    """Prints notices; one that cannot be printed is no error of what it is about."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def _show_notices() -> _FirstOfMany:
    logger = logging.getLogger("sda_daemon")
    handler = _NoticeHandler(sys.stderr)
    handler.setFormatter(_NoticeFormatter())
    first = _FirstOfMany()
    handler.addFilter(first)
    logger.handlers = [handler]
    logger.propagate = False
    return first


def run_app(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    It does what it has to do even if nobody hears of it. That stdout did not take everything is an error in the end,
    unless its reader has gone: `… | head -1` has got what it wanted.
    """
    streams = StandardStreams()
    completion.enable()
    code = _run(arguments)
    error = streams.why_cut()
    if error is not None:
        _complain(f"stdout did not take everything: {explained(error)}")
        return code or exit_code_of(error)
    return code


def _run(arguments: list[str]) -> int:
    notices = _show_notices()
    try:
        result = app(args=arguments, standalone_mode=False, prog_name=PROGRAM)
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SdaError as error:
        _complain(_bounded(error))
        return error.exit_code
    except OSError as error:
        return _os_error(error)
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        _complain_of_usage(error)
        return ExitCode.USAGE
    finally:
        notices.tell_rest()
    return result if isinstance(result, int) else ExitCode.OK


def _complain_of_usage(error: Exception) -> None:
    """Print what is wrong with a command line, and what would be right."""
    words = io.StringIO()
    error.show(words)  # type: ignore[attr-defined]
    note(words.getvalue().rstrip("\n"))


def _os_error(error: OSError) -> int:
    _complain(with_hint(error))
    return exit_code_of(error)


def _bounded(error: SdaError) -> str:
    """Return an error's message, of one that lists very much the beginning, and what to do next in any case."""
    what = "\n".join(listed(error.what.split("\n"), most=MOST_LINES + 2))
    return f"{what}. {error.hint}" if error.hint else what


def _complain(text: str) -> None:
    """Print an error; its lines stay lines, but no control character of a file reaches the terminal."""
    from sda_daemon.logs import print_error

    print_error("\n".join(clean(line, LONGEST_LINE) for line in text.split("\n")))
