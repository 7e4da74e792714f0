"""What `sda-daemon status` can show of a running daemon: published into the ledger when it changes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

from sda_daemon.conversion.queue import ConversionQueue
from sda_daemon.intake.intake import Intake
from sda_daemon.library.keeper import Keeper
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.missing_library import filled

PUBLISH_S = 1.0
"""Shortest time between two publications, in seconds."""
MAX_LISTED = 200
"""Longest list of paths that is published; the counts are always whole."""


class Reporter:
    """Publishes the state of the daemon's parts, at most once a second and only when it has changed.

    Args:
        ledger: where to.
        intake: the watched folders.
        conversions: the queue.
        keeper: returns the keeper of the library that new models go into.
        identity: what does not change while the daemon runs: `pid`, `started_at`, `version`, `config`, …
    """

    def __init__(
        self,
        ledger: Ledger,
        intake: Intake,
        conversions: ConversionQueue,
        keeper: Callable[[], Keeper],
        identity: dict[str, Any],
    ) -> None:
        self.identity = identity
        self._ledger = ledger
        self._intake = intake
        self._conversions = conversions
        self._keeper = keeper
        self._last: dict[str, Any] = {}
        self._publish_at = 0.0

    def tick(self, now: float) -> None:
        """Publish if something has changed and it is time."""
        if now < self._publish_at:
            return
        state = self.state()
        if state != self._last:
            self._publish_at = now + PUBLISH_S
            self._last = state
            self._ledger.report(state)

    def close(self) -> None:
        """Publish the last state, whenever the one before was."""
        with contextlib.suppress(sqlite3.Error):  # a full disk, say: then the state before stands
            self._ledger.report(self.state())

    def state(self) -> dict[str, Any]:
        """Return what is published."""
        unfinished = self._intake.settling.unfinished()
        waiting = [path for path in self._intake.settling.paths() if path not in unfinished]
        incomplete = self._intake.settling.reported()
        keeper = self._keeper()
        models = keeper.count()
        return {
            **({} if keeper.is_lost else filled(keeper.models_dir, models)),
            "daemon": self.identity,
            "library": {"models": models, "foreign_entries": keeper.foreign_entries, "problem": keeper.problem},
            "watches": [
                {
                    "path": root.path,
                    "observer": root.watch.state.observer,
                    "problem": root.shortage or root.watch.state.problem,
                }
                for root in self._intake.roots.values()
            ],
            "settling": {"count": len(waiting), "paths": waiting[:MAX_LISTED]},
            "waiting": {"count": len(self._conversions.ready), "paths": list(self._conversions.ready)[:MAX_LISTED]},
            "converting": sorted(self._conversions.running),
            "incomplete": [{"path": path, "reason": reason} for path, reason in list(incomplete.items())[:MAX_LISTED]],
            "incomplete_count": len(incomplete),
        }
