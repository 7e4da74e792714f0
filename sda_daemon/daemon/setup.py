"""What a session is made of: what outlives it, and the checks before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sda_daemon import events
from sda_daemon.conversion.job import WorkerSaid
from sda_daemon.conversion.pool import ConversionPool, WorkerPool
from sda_daemon.conversion.work import RunContext
from sda_daemon.daemon.heartbeat import Heartbeat
from sda_daemon.daemon.inbox import Inbox
from sda_daemon.errors import LibraryLostError, NothingToWatchError
from sda_daemon.library.findings import MISSING_HINT
from sda_daemon.library.in_use import InUse
from sda_daemon.settings.advice import advice_on
from sda_daemon.settings.loading import LoadedConfig
from sda_daemon.settings.reload import ConfigFile
from sda_daemon.settings.run_config import RunConfig
from sda_daemon.settings.schema import Settings
from sda_daemon.state.missing_library import MissingLibrary, find_missing_library
from sda_daemon.state.open_library import OpenLibrary
from sda_daemon.watching.reach import why_unwatchable


@dataclass(frozen=True, slots=True)
class Process:
    """What outlives a session.

    Attributes:
        config_file: the config file, and what is known of it.
        heartbeat: what the service manager is told.
        state_dir: where the ledger is, whatever a later config says.
        started_at: when the daemon was started, ISO 8601 in UTC.
        once: whether everything is looked at once, and then it is over.
        make_pool: makes an engine that converts, by settings; it puts what workers print into an inbox.
    """

    config_file: ConfigFile
    heartbeat: Heartbeat
    state_dir: Path
    started_at: str
    once: bool
    make_pool: Callable[[Settings, Inbox], ConversionPool]


def worker_pool(settings: Settings, inbox: Inbox) -> WorkerPool:
    """Make the engine of one machine: worker processes."""
    limits = settings.conversion
    return WorkerPool(
        settings.workers, limits.time_limit_s, limits.memory_limit, lambda text: inbox.put(WorkerSaid(text))
    )


def run_context(config: RunConfig, opened: OpenLibrary, pool: ConversionPool) -> RunContext:
    """Return what conversions begin with from now on."""
    application = config.settings.application
    in_use = InUse(application.presets, application.history)
    return RunContext(config, opened.library, pool, opened.work_dir, in_use)


def check_watches(settings: Settings, *, once: bool) -> None:
    """Refuse a config by which nothing can be watched.

    Raises:
        NothingToWatchError: none of its folders can be; with `once`, none is there.
    """
    if once and not any(watch.path.is_dir() for watch in settings.watch):
        folders = ", ".join(str(watch.path) for watch in settings.watch)
        raise NothingToWatchError(f"none of the watched folders is there: {folders}", "Check the paths under watch")
    problems = {str(watch.path): why_unwatchable(watch.path) for watch in settings.watch}
    if all(problems.values()):
        reasons = "; ".join(f"{path}: {reason}" for path, reason in problems.items())
        raise NothingToWatchError(f"none of the folders can be watched: {reasons}", "Check the paths under watch")


def find_missing(settings: Settings, state_dir: Path, *, once: bool) -> MissingLibrary | None:
    """Look whether the models folder is one that is not mounted.

    Raises:
        LibraryLostError: it is, and there is no time to wait for it.
    """
    missing = find_missing_library(settings.models_dir, state_dir)
    if missing is not None and once:
        hint = MISSING_HINT[:1].upper() + MISSING_HINT[1:]
        raise LibraryLostError(f"{missing.models_dir} is taken to be lost: {missing}", hint)
    return missing


def advise(config: LoadedConfig) -> None:
    """Say what is hardly meant in the config that comes into force."""
    for item in advice_on(config.settings):
        events.CONFIG_DOUBTFUL(key=item.key, reason=item.message)
