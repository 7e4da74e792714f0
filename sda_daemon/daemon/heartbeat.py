"""What the loop tells the service manager: that it is ready, how far it is, that it turns."""

from __future__ import annotations

from sda_daemon.service.notify import Notifier
from sda_daemon.service.status import Progress, describe

EXTEND_S = 30.0
"""While the daemon is draining it asks for so much more time, again and again."""
EXTEND_EVERY_S = 5.0


class Heartbeat:
    """Tells a notifier how the daemon is doing. Called by the loop only, so that silence means that it hangs.

    Args:
        notifier: the service manager.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._extend_at = 0.0
        self._is_reloading = False

    def ready(self, progress: Progress, now: float) -> None:
        """Say that every watch is live and the first rescans are queued, or that a reload is over."""
        self.poll(progress, now)
        self._notifier.ready()

    def reloading(self) -> None:
        """Say that the config is being read again, because the manager has asked for it."""
        self._is_reloading = True
        self._notifier.reloading()

    def reloaded(self, progress: Progress, now: float) -> None:
        """Say that a reload that the manager asked for is over, whatever came of it; nothing without one."""
        if self._is_reloading:
            self._is_reloading = False
            self.ready(progress, now)

    def poll(self, progress: Progress, now: float) -> None:
        """Say that the loop turns, and what the daemon is doing.

        Args:
            progress: what there is to say.
            now: monotonic seconds.
        """
        self._notifier.alive(now)
        if self._notifier.is_listening:
            self._notifier.status(describe(progress), now)

    def next_moment(self) -> float:
        """Return when `poll` must be called next, in monotonic seconds."""
        return self._notifier.next_moment()

    def stopping(self) -> None:
        """Say that the daemon is on its way out."""
        self._notifier.stopping()

    def drain(self, running: int, now: float, deadline: float) -> None:
        """Say that running conversions are waited for, and ask for the time that this takes.

        Args:
            running: how many there are.
            now: monotonic seconds.
            deadline: until when they are waited for, likewise.
        """
        self._notifier.alive(now)
        if now >= self._extend_at:
            self._extend_at = now + EXTEND_EVERY_S
            self._notifier.extending(EXTEND_S)
        self._notifier.status(f"ending; {running} converting, cut off in {max(0.0, deadline - now):.0f} s", now)
