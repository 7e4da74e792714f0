"""`sda-daemon status` and `sda-daemon retry`: what the daemon is doing, and another try for what failed."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sda_daemon.cli.options import ANY_PATH, AsJson, ConfigFile
from sda_daemon.cli.output import print_json
from sda_daemon.errors import ExitCode, SdaError

if TYPE_CHECKING:
    from rich.console import Console

    from sda_daemon.conversion.ledger import Ledger
    from sda_daemon.conversion.policy import LedgerRow


def status(config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show whether the daemon runs, and what it is doing.

    What it watches, what is waiting, converting and incomplete, what failed and why, which checkpoints could not be
    deleted or moved, and what was done today.
    Exits with 0 if it runs, 1 if not.
    """
    from sda_daemon.config import find_config, load_config, state_folder
    from sda_daemon.daemon.locks import is_at_work

    settings = load_config(find_config(config)).settings
    state_dir = state_folder(settings)
    running = is_at_work(settings.models_dir, state_dir)
    with _open_ledger(state_dir) as ledger:
        facts = collect_status(ledger, running=running)
    if as_json:
        print_json(facts)
    else:
        _print_status(facts)
    return ExitCode.OK if running else ExitCode.FAILED


@contextlib.contextmanager
def _open_ledger(state_dir: Path) -> Any:
    from sda_daemon.conversion.ledger import LEDGER_FILE_NAME, Ledger
    from sda_daemon.files import is_file

    if not is_file(state_dir / LEDGER_FILE_NAME):
        raise SdaError(f"no daemon has run with this config yet: there is no ledger in {state_dir}", "Start it: run")
    ledger = Ledger(state_dir, owned=False)
    try:
        yield ledger
    finally:
        ledger.close()


def collect_status(ledger: Ledger, *, running: bool) -> dict[str, Any]:
    """Return everything that `status` shows, as plain values."""
    from sda_daemon.conversion.ledger import RETRY_KIND
    from sda_daemon.conversion.policy import Status
    from sda_daemon.intake.probe import look

    reported = ledger.reported()
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
        "failed": [_failure(row, running=running) for row in failures],
        "kept": [
            {"path": item.path, "reason": item.reason, "since": _utc(item.since)}
            for item in ledger.kept_sources()
            if look(item.path) == item.signature
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
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="seconds")


def _print_status(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    daemon = facts["daemon"]
    if daemon:
        console.print(
            f"[bold green]running[/] since {_local(daemon['started_at'])} (pid {daemon['pid']}, {daemon['version']})"
        )
        console.print(f"config   {daemon['config']}", markup=False)
        console.print(f"models   {daemon['models_dir']}", markup=False)
        _print_loss(console, facts["library"])
    else:
        console.print("[bold yellow]not running[/]")
    state = facts["config_state"]
    if state and state.get("error"):
        console.print("[bold red]the config file has changed and was refused; the earlier one stays in force[/]")
        console.print(f"  {state['error']}", markup=False)
    elif state and daemon:
        console.print(f"         read {_local(state['read_at'])}")
    for watch in facts["watches"]:
        how = watch["observer"] or "missing"
        problem = f"  [yellow]{escape(watch['problem'])}[/]" if watch["problem"] else ""
        console.print(f"watching {escape(watch['path'])} ({how}){problem}")
    _print_paths(console, "settling", facts["settling"]["count"], facts["settling"]["paths"])
    _print_paths(console, "waiting", facts["waiting"]["count"], facts["waiting"]["paths"])
    _print_paths(console, "converting", len(facts["converting"]), facts["converting"])
    for item in facts["incomplete"]:
        console.print(f"[yellow]incomplete[/] {escape(item['path'])}: {escape(item['reason'])}")
    for item in facts["failed"]:
        console.print(f"[red]{item['status'].replace('_', ' ')}[/] {escape(item['path'])}")
        console.print(f"  {item['reason']}", markup=False)
        again = item["next_try_in_s"]
        attempts = f"{item['attempts']} attempt{'s' if item['attempts'] != 1 else ''}"
        console.print(f"  {attempts}" + (f", next in {again:.0f} s" if again is not None else ""))
    if facts["failed"]:
        console.print("try again with: sda-daemon retry PATH... | --all")
    for item in facts["kept"]:
        console.print(f"[yellow]kept[/] {escape(item['path'])}: it could not be deleted or moved")
        console.print(f"  {item['reason']}", markup=False)
    today = facts["today"]
    console.print(
        f"today    {today['converted']} converted, {today['duplicates']} duplicates, {today['failed']} failed"
    )


def _print_loss(console: Console, library: dict[str, Any] | None) -> None:
    from sda_daemon.daemon.librarian import LOSS_HINT

    if library and library.get("foreign_entries"):
        count = library["foreign_entries"]
        entries = "1 entry" if count == 1 else f"{count} entries"
        console.print(f"         {entries} of other programs in the index, left as they are")
    if library and library["problem"]:
        console.print("[bold red]the models folder is lost; conversions wait[/]")
        console.print(f"  {library['problem']}; {LOSS_HINT}", markup=False)


def _print_paths(console: Console, title: str, count: int, paths: list[str]) -> None:
    if count:
        console.print(f"{title} {count}")
        for path in paths[:5]:
            console.print(f"  {path}", markup=False)
        if count > 5:
            console.print(f"  and {count - 5} more")


def _local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


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
    from sda_daemon.config import find_config, load_config, state_folder
    from sda_daemon.daemon.locks import is_at_work
    from sda_daemon.daemon.loop import RETRY_SIGNAL

    if bool(paths) == everything:
        raise typer.BadParameter("name checkpoints, or use --all")
    settings = load_config(find_config(config)).settings
    state_dir = state_folder(settings)
    running = is_at_work(settings.models_dir, state_dir)
    with _open_ledger(state_dir) as ledger:
        wanted = [os.path.abspath(path) for path in paths or []]  # noqa: PTH100 - `..` is to go, links are to stay
        chosen = ledger.reset_attempts(None if everything else wanted)
        daemon = ledger.reported().get("daemon") or {}
    for path in wanted:
        if path not in chosen:
            typer.echo(f"sda-daemon: {path} has not failed", err=True)
    if chosen and running and daemon.get("pid"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(daemon["pid"]), RETRY_SIGNAL)
        typer.echo(f"trying {len(chosen)} again now")
    else:
        typer.echo(f"{len(chosen)} will be tried again" + (" when the daemon starts" if chosen else ""))
    return ExitCode.OK if len(chosen) >= len(wanted) else ExitCode.FAILED
