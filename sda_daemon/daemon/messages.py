"""What reaches the loop besides the watchers' hints. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from sda_daemon.conversion.job import Outcome


@dataclass(frozen=True, slots=True)
class JobDone:
    """A worker is done with a job."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    """A worker process, or a library in it, has printed something."""

    text: str


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Failures have been taken out of the ledger, to be tried again now."""


@dataclass(frozen=True, slots=True)
class ConfigTouched:
    """Something happened to the config file, or on the way to it."""


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """Someone wants the config to be read again (SIGHUP)."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Someone wants the daemon to stop; asked a second time, at once."""

    reason: str
