"""What reaches the loop besides the watchers' hints. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from sda_daemon.conversion.job import ConversionJob, Outcome


@dataclass(frozen=True, slots=True)
class WorkerFree:
    """A worker is done with a job; its model is on the way to the disk, or the failure to the loop."""

    job: ConversionJob


@dataclass(frozen=True, slots=True)
class JobDone:
    """A conversion has ended, and its file is on the disk."""

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
