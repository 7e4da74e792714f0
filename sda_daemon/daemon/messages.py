"""What people want of the running daemon, by signals. Frozen."""

from __future__ import annotations

from dataclasses import dataclass


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
