"""`sda-daemon status` and `sda-daemon retry`: what the daemon is doing, and another try for what failed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.options import ANY_PATH, AsJson, ConfigFile, Everything
from sda_daemon.cli.output import LONGEST_LINE, counted, make_console, note, print_json, print_list
from sda_daemon.errors import ExitCode, SdaError
from sda_daemon.wording import LONGEST_QUOTE, LONGEST_VALUE, MOST_LINES, and_more, clean, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from sda_daemon.state.ledger import Ledger
    from sda_daemon.state.policy import LedgerRow


def status(everything: Everything = False, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show whether the daemon runs, and what it is doing.

    What it watches, what is waiting, converting and incomplete, what failed and why, which checkpoints could not be
    deleted or moved, and what was done today.
    Exits with 0 if it runs, 1 if not.
    """
    from sda_daemon.settings.loading import find_config, load_config, state_folder
    from sda_daemon.state.locks import is_at_work

    settings = load_config(find_config(config)).settings
    state_dir = state_folder(settings)
    running = is_at_work(settings.models_dir, state_dir)
    with _open_ledger(state_dir) as ledger:
        facts = collect_status(ledger, running=running)
    if as_json:
        print_json(facts)
    else:
        _print_status(facts, everything=everything)
    return ExitCode.OK if running else ExitCode.FAILED


@contextlib.contextmanager
def _open_ledger(state_dir: Path) -> Any:
    from sda_daemon.files import status_of
    from sda_daemon.state.ledger import LEDGER_FILE_NAME, Ledger

    if status_of(state_dir / LEDGER_FILE_NAME) is None:
        raise SdaError(f"no daemon has run with this config yet: there is no ledger in {state_dir}", "Start it: run")
    ledger = Ledger(state_dir, owned=False)
    try:
        yield ledger
    finally:
        ledger.close()


def collect_status(ledger: Ledger, *, running: bool) -> dict[str, Any]:
    """Return everything that `status` shows, as plain values."""
    from sda_daemon.signature import signature_at
    from sda_daemon.state.ledger import RETRY_KIND
    from sda_daemon.state.policy import Status

    reported = _reported(ledger)
    midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    today = ledger.counts_since(midnight)
    nothing = {"count": 0, "paths": []}
    failed = ledger.of_status(Status.FAILED, Status.REFUSED, Status.GIVEN_UP)
    failures = [row for row in failed if row.kind != RETRY_KIND and not _is_gone(row.path)]
    return {
        "running": running,
        "daemon": reported.get("daemon") if running else None,
        "config_state": (reported.get("daemon") or {}).get("config_state") if running else None,
        "library": reported.get("library") if running else None,
        "watches": reported.get("watches", []) if running else [],
        "settling": reported.get("settling", nothing) if running else nothing,
        "waiting": reported.get("waiting", nothing) if running else nothing,
        "converting": reported.get("converting", []) if running else [],
        "incomplete": reported.get("incomplete", []),
        "incomplete_count": reported.get("incomplete_count", len(reported.get("incomplete", []))),
        "failed": [_failure(row, running=running) for row in failures],
        "kept": [
            {"path": item.path, "reason": item.reason, "since": _utc(item.since)}
            for item in ledger.kept_sources()
            if signature_at(item.path) == item.signature
        ],
        "today": {
            "converted": today.get(Status.DONE, 0),
            "duplicates": today.get(Status.DUPLICATE, 0),
            "failed": sum(today.get(kind, 0) for kind in (Status.FAILED, Status.REFUSED, Status.GIVEN_UP)),
        },
    }


def _is_gone(path: str) -> bool:
    """Tell whether a checkpoint is there no more; what may not be looked at is hardly gone."""
    from sda_daemon.files import is_file

    try:
        return not is_file(Path(path))
    except OSError:
        return False


_REPORTED = {
    "daemon": dict,
    "library": dict,
    "watches": list,
    "settling": dict,
    "waiting": dict,
    "converting": list,
    "incomplete": list,
    "incomplete_count": int,
}


def _reported(ledger: Ledger) -> dict[str, Any]:
    """Return what the daemon, perhaps one of another version, has published about itself, as far as it can be used."""
    return {key: value for key, value in ledger.reported().items() if isinstance(value, _REPORTED.get(key, object))}


def _failure(row: LedgerRow, *, running: bool) -> dict[str, Any]:
    pause_s = max(0.0, row.next_try_at - time.time()) if running and row.next_try_at else None
    return {
        "path": row.path,
        "status": row.status.value,
        "kind": row.kind,
        "reason": row.reason,
        "attempts": row.attempts,
        "failed_at": _utc(row.updated_at),
        "next_try_in_s": None if pause_s is None else round(pause_s, 1),
    }


def _utc(moment_s: float) -> str:
    """Return UTC seconds as ISO 8601; of a moment that no calendar has, the first of all that there are."""
    try:
        return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return datetime.min.replace(tzinfo=UTC).isoformat(timespec="seconds")


ALL = "sda-daemon status --all"
_FAILURE_LINES = 3
_KEPT_LINES = 2
_MOST_PATHS = 5


def _print_status(facts: dict[str, Any], *, everything: bool) -> None:
    from rich.text import Text

    console = make_console()

    def show(text: object, style: str = "") -> None:
        console.print(clean(text, LONGEST_LINE), style=style or None, soft_wrap=True)

    daemon = facts["daemon"]
    if daemon:
        since = f"since {_local(daemon.get('started_at'))} (pid {daemon.get('pid')}, {daemon.get('version')})"
        console.print(Text.assemble(("running", "bold green"), f" {clean(since)}"), soft_wrap=True)
        show(f"config   {daemon.get('config')}")
        show(f"models   {daemon.get('models_dir')}")
        _print_library(show, facts["library"])
    else:
        show("not running", "bold yellow")
    state = facts["config_state"]
    if state and state.get("error"):
        show("the config file has changed and was refused; the earlier one stays in force", "bold red")
        print_list([f"  {line}" for line in str(state["error"]).split("\n")], "sda-daemon config check", to=show)
    elif state and daemon:
        show(f"         read {_local(state.get('read_at'))}")
    watches = [
        f"watching {watch['path']} ({watch['observer'] or 'missing'})"
        + (f"  {watch['problem']}" if watch["problem"] else "")
        for watch in facts["watches"]
    ]
    print_list(watches, ALL, everything=everything, to=show)
    for title in ("settling", "waiting"):
        _print_paths(show, title, facts[title]["count"], facts[title]["paths"], everything=everything)
    _print_paths(show, "converting", len(facts["converting"]), facts["converting"], everything=everything)
    _print_incomplete(show, facts["incomplete"], facts["incomplete_count"], everything=everything)
    _print_failures(console, show, facts["failed"], everything=everything)
    _print_kept(console, show, facts["kept"], everything=everything)
    today = facts["today"]
    show(f"today    {today['converted']} converted, {today['duplicates']} duplicates, {today['failed']} failed")


Show = Callable[..., None]
"""Prints one line, in a style."""


def _print_failures(console: Console, show: Show, failures: list[dict[str, Any]], *, everything: bool) -> None:
    from rich.text import Text

    most = len(failures) if everything else MOST_LINES // _FAILURE_LINES
    for item in failures[:most]:
        what = item["status"].replace("_", " ")
        console.print(Text.assemble((what, "red"), f" {clean(item['path'], LONGEST_LINE)}"), soft_wrap=True)
        show(f"  {shortened(item['reason'], LONGEST_VALUE)}")
        again = item["next_try_in_s"]
        show(f"  {counted(item['attempts'], 'attempt')}" + (f", next in {again:.0f} s" if again is not None else ""))
    if failures[most:]:
        show(and_more(len(failures) - most, ALL))
    if failures:
        show("try again with: sda-daemon retry PATH... | --all")


def _print_kept(console: Console, show: Show, items: list[dict[str, Any]], *, everything: bool) -> None:
    from rich.text import Text

    most = len(items) if everything else MOST_LINES // _KEPT_LINES
    for item in items[:most]:
        what = f" {clean(item['path'], LONGEST_LINE)}: it could not be deleted or moved"
        console.print(Text.assemble(("kept", "yellow"), what), soft_wrap=True)
        show(f"  {shortened(item['reason'], LONGEST_VALUE)}")
    if items[most:]:
        show(and_more(len(items) - most, ALL))


def _print_incomplete(show: Show, items: list[dict[str, Any]], count: int, *, everything: bool) -> None:
    lines = [f"incomplete {item['path']}: {shortened(item['reason'], LONGEST_VALUE)}" for item in items]
    most = len(lines) if everything else MOST_LINES
    for line in lines[:most]:
        show(line, "yellow")
    if count > most:
        show(and_more(count - min(most, len(lines)), "" if everything else ALL))


def _print_library(show: Show, library: dict[str, Any] | None) -> None:
    from sda_daemon.library.findings import MISSING_HINT

    if library and library.get("foreign_entries"):
        count = library["foreign_entries"]
        entries = "1 entry" if count == 1 else f"{count} entries"
        show(f"         {entries} of other programs in the index, left as they are")
    if library and library["problem"]:
        show("the models folder is lost; conversions wait", "bold red")
        show(f"  {library['problem']}; {MISSING_HINT}")


def _print_paths(show: Show, title: str, count: int, paths: list[str], *, everything: bool) -> None:
    if not count:
        return
    show(f"{title} {count}")
    shown = paths if everything else paths[:_MOST_PATHS]
    for path in shown:
        show(f"  {path}")
    if count > len(shown):
        show(f"  {and_more(count - len(shown), '' if everything else ALL)}")


def _local(moment: object) -> str:
    """Return an ISO 8601 moment in local time, to the second."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return clean(moment, LONGEST_QUOTE)


def retry(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Checkpoints that failed.", **ANY_PATH)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that failed.")] = False,
    config: ConfigFile = None,
) -> int:
    """Try failed checkpoints again.

    At once if the daemon runs, else when it starts.
    """
    from sda_daemon.daemon.signals import RETRY_SIGNAL
    from sda_daemon.settings.loading import find_config, load_config, state_folder
    from sda_daemon.state.locks import is_at_work

    if bool(paths) == everything:
        raise typer.BadParameter("name checkpoints, or use --all")
    settings = load_config(find_config(config)).settings
    state_dir = state_folder(settings)
    running = is_at_work(settings.models_dir, state_dir)
    with _open_ledger(state_dir) as ledger:
        wanted = [os.path.abspath(path) for path in paths or []]  # noqa: PTH100 - `..` is to go, links are to stay
        chosen = ledger.reset_attempts(None if everything else wanted)
        daemon = ledger.reported().get("daemon") or {}
    known = set(chosen)
    print_list([f"sda-daemon: {path} has not failed" for path in wanted if path not in known], to=note)
    if chosen and running and daemon.get("pid"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(daemon["pid"]), RETRY_SIGNAL)
        typer.echo(f"trying {len(chosen)} again now")
    else:
        typer.echo(f"{len(chosen)} will be tried again" + (" when the daemon starts" if chosen else ""))
    return ExitCode.OK if len(chosen) >= len(wanted) else ExitCode.FAILED
