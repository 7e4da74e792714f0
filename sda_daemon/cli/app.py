"""All commands in one place, and how errors become messages and exit codes.

The modules of the commands import at their top only what parsing needs, so that every command starts at once.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from sda_daemon import __version__
from sda_daemon.cli import completion, config, convert, event_list, inspection, models, run, status, systemd_unit
from sda_daemon.cli.options import examples
from sda_daemon.cli.output import clean
from sda_daemon.errors import ExitCode, SdaError, explained, remedy

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

        name, values = record.args if isinstance(record.args, tuple) and len(record.args) == 2 else ("", {})
        known = next((event for event in events.catalogue() if event.name == name), None)
        if known is None or not isinstance(values, dict):
            return f"{PROGRAM}: {record.getMessage()}"
        details = ", ".join(f"{key}: {clean(value)}" for key, value in values.items() if value not in ("", None))
        return f"{PROGRAM}: {known.when} ({details})"


def _show_notices() -> None:
    logger = logging.getLogger("sda_daemon")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_NoticeFormatter())
    logger.handlers = [handler]
    logger.propagate = False


def run_app(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    completion.enable()
    _show_notices()
    try:
        result = app(args=arguments, standalone_mode=False, prog_name=PROGRAM)
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SdaError as error:
        _complain(_told(error))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        return _os_error(error)
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        error.show()  # type: ignore[attr-defined]
        return ExitCode.USAGE
    return result if isinstance(result, int) else ExitCode.OK


def _os_error(error: OSError) -> int:
    told = _told(error)
    _complain(explained(error) if told == str(error) else told)
    return ExitCode.CANNOT_WRITE if remedy(error) else ExitCode.FAILED


def _told(error: Exception) -> str:
    """Return an error's message, with advice where a sandbox is to blame."""
    from sda_daemon.service.sandbox import tell

    return tell(error)


def _complain(text: str) -> None:
    """Print an error; its lines stay lines, but no control character of a file reaches the terminal."""
    from sda_daemon.logs import print_error

    print_error("\n".join(clean(line) for line in text.split("\n")))
