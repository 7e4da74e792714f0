"""All commands in one place, and how errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys

import click
import typer

from sda_daemon import __version__
from sda_daemon.cli import config, convert, models, run, status, systemd_unit
from sda_daemon.errors import ExitCode, SdaError

app = typer.Typer(
    name="sda-daemon",
    help="Turns the checkpoints of small audio models into a library of finished models, in the background.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("run")(run.run)
app.command("convert")(convert.convert)
app.command("status")(status.status)
app.command("retry")(status.retry)
app.command("systemd-unit")(systemd_unit.systemd_unit)
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"sda-daemon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version_flag: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Turns the checkpoints of small audio models into a library of finished models, in the background."""


def run_app(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        result = app(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SdaError as error:
        _complain(error)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        _complain(error)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
        return ExitCode.CANNOT_WRITE if is_full else ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.OK


def _complain(error: Exception) -> None:
    from sda_daemon.logs import print_error
    from sda_daemon.service.sandbox import tell

    print_error(tell(error))
