"""What reaches the loop besides the watchers' hints. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from sda_daemon.conversion.job import Outcome


@dataclass(frozen=True, slots=True)
class JobDone:
    """A worker is done with a job."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Someone wants the daemon to stop; asked a second time, at once."""

    reason: str
