"""What `sda-daemon status` can show of a running daemon: published into the ledger when it changes."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

from sda_daemon.state.ledger import Ledger

PUBLISH_S = 1.0
"""Shortest time between two publications, in seconds."""


class Reporter:
    """Publishes the state of a session, at most once a second and only when it has changed.

    Args:
        ledger: where to.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[str, Any] = {}
        self._publish_at = 0.0

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to publish what has changed; `now` in monotonic seconds."""
        return now >= self._publish_at

    def poll(self, state: dict[str, Any], now: float) -> None:
        """Publish a state if it is another one and it is time; `now` in monotonic seconds."""
        if self.is_due(now) and state != self._last:
            self._publish_at = now + PUBLISH_S
            self._last = state
            self._ledger.report(state)

    def close(self, state: dict[str, Any]) -> None:
        """Publish the last state, whenever the one before was."""
        with contextlib.suppress(sqlite3.Error):  # a full disk, say: then the state before stands
            self._ledger.report(state)
