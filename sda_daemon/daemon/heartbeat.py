"""What the loop tells the service manager: that it is ready, how far it is, that it turns."""

from __future__ import annotations

import time
from collections.abc import Callable

from sda_daemon.conversion.queue import ConversionQueue
from sda_daemon.intake.intake import Intake
from sda_daemon.service.notify import Notifier
from sda_daemon.service.status import Progress, describe

EXTEND_S = 30.0
"""While the daemon is draining it asks for so much more time, again and again."""
EXTEND_EVERY_S = 5.0


class Heartbeat:
    """Tells a notifier about the daemon's parts. Called by the loop only, so that silence means that it hangs.

    Args:
        notifier: the service manager.
        intake: the watched folders.
        conversions: the queue.
    """

    def __init__(self, notifier: Notifier, intake: Intake, conversions: ConversionQueue) -> None:
        self._notifier = notifier
        self._intake = intake
        self._conversions = conversions
        self.library_problem: Callable[[], str] = lambda: ""  # why the models folder is lost, if it is
        self._extend_at = 0.0
        self._is_reloading = False

    def ready(self) -> None:
        """Say that every watch is live and the first rescans are queued."""
        self.tick(time.monotonic())
        self._notifier.ready()

    def reloading(self) -> None:
        """Say that the config is being read again, because the manager has asked for it."""
        self._is_reloading = True
        self._notifier.reloading()

    def reloaded(self) -> None:
        """Say that a reload that the manager asked for is over, whatever came of it; nothing without one."""
        if self._is_reloading:
            self._is_reloading = False
            self.ready()

    def tick(self, now: float) -> None:
        """Say that the loop turns, and what the daemon is doing."""
        self._notifier.alive(now)
        if self._notifier.is_listening:
            self._notifier.status(describe(self.progress(now)), now)

    def turn(self) -> None:
        """Say that the loop turns, in the middle of something long."""
        self._notifier.alive(time.monotonic())

    def next_moment(self) -> float:
        """Return when `tick` must be called next, in monotonic seconds."""
        return self._notifier.next_moment()

    def stopping(self) -> None:
        """Say that the daemon is on its way out."""
        self._notifier.stopping()

    def drain(self, now: float, deadline: float) -> None:
        """Say that running conversions are waited for, and ask for the time that this takes.

        Args:
            now: monotonic seconds.
            deadline: until when they are waited for, likewise.
        """
        self._notifier.alive(now)
        if now >= self._extend_at:
            self._extend_at = now + EXTEND_EVERY_S
            self._notifier.extending(EXTEND_S)
        running = len(self._conversions.running)
        self._notifier.status(f"ending; {running} converting, cut off in {max(0.0, deadline - now):.0f} s", now)

    def progress(self, now: float) -> Progress:
        """Return what there is to say about the daemon."""
        roots = self._intake.roots.values()
        last, last_at = self._conversions.last or ("", now)
        return Progress(
            watching=sum(bool(root.watch.state.observer) for root in roots),
            missing=tuple(root.path for root in roots if not root.watch.state.observer),
            converting=len(self._conversions.running),
            waiting=len(self._conversions.ready) + self._intake.waiting,
            failed=self._conversions.failed,
            last=last,
            last_age_s=now - last_at,
            library_problem=self.library_problem(),
        )
