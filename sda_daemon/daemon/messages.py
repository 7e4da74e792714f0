"""What people want of the running daemon, by signals, and all that its loop may hear. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from sda_daemon.conversion.clearing import SourceNews
from sda_daemon.conversion.doubles import WeightsNews
from sda_daemon.conversion.job import JobDone, WorkerFree, WorkerSaid
from sda_daemon.settings.reload import ConfigTouched
from sda_daemon.watching.hints import Hint


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Failures have been taken out of the ledger, to be tried again now."""


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """Someone wants the config to be read again (SIGHUP)."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Someone wants the daemon to stop; asked a second time, at once."""

    reason: str


Request = RetryRequested | ReloadRequested | StopRequested
Message = Request | Hint | ConfigTouched | WorkerFree | JobDone | WorkerSaid | SourceNews | WeightsNews
"""All that comes to a session's inbox: watchers, workers, threads and signal handlers only put it there."""
