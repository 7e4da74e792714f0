"""One watched folder: how it is watched, and when it is to be looked through again."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from sda_daemon import events
from sda_daemon.intake.scan import CheckpointNames
from sda_daemon.settings.run_config import RunConfig
from sda_daemon.settings.schema import WatchSettings
from sda_daemon.watching.hints import Hint
from sda_daemon.watching.reach import why_unwatchable
from sda_daemon.watching.watcher import RootWatch, refuses_watches

CHECK_LIMIT_S = 1.0
"""After new folders appeared, so much later it is checked whether the kernel had watches for them."""
RECOVER_S = 15.0
"""How often native watching is tried again where only polling was possible."""
LIMIT_HINT = "raise fs.inotify.max_user_watches and max_user_instances with sysctl; then it recovers by itself"


class Root:
    """A watched folder.

    Args:
        settings: what the config says of it.
        config: the config in force.
        enqueue: takes hints for the loop; called from other threads.
        now: monotonic seconds.
        live: whether changes are watched for; else it is only looked through.
    """

    def __init__(
        self, settings: WatchSettings, config: RunConfig, enqueue: Callable[[Hint], None], now: float, *, live: bool
    ) -> None:
        self.path = str(settings.path)
        self._live = live
        self._enqueue = enqueue
        self._rescan_at = now + config.settings.rescan_interval_s
        self._recover_at = 0.0
        self._check_limit_at = math.inf
        self._shortage = ""
        self._was_missing = False
        self._take(settings, config)
        self._watch = self._new_watch()
        if live:
            self._start(now)

    def _take(self, settings: WatchSettings, config: RunConfig) -> None:
        self.settings = settings
        self.names = CheckpointNames(settings.patterns, settings.ignore, config.own_folders)
        self._interval_s = config.settings.rescan_interval_s

    def _new_watch(self) -> RootWatch:
        return RootWatch(self.path, self.settings.observer, self.settings.poll_interval_s, self._enqueue)

    def configure(self, settings: WatchSettings, config: RunConfig, now: float) -> None:
        """Watch it as another config wants it; without a gap, if it is watched in the same way."""
        old = self.settings
        self._take(settings, config)
        if (old.observer, old.poll_interval_s) != (settings.observer, settings.poll_interval_s):
            self._watch.stop()
            self._watch = self._new_watch()
            self._shortage = ""
            if self._live:
                self._start(now)

    def stop(self) -> None:
        """Stop watching."""
        self._watch.stop()

    # --- questions --------------------------------------------------------------------------------

    @property
    def observer(self) -> str:
        """How it is watched: `native`, `polling`, or empty for not at all."""
        return self._watch.state.observer

    @property
    def problem(self) -> str:
        """Why it is not watched as it should be; empty if it is."""
        return self._shortage or self._watch.state.problem

    def next_moment(self) -> float:
        """Return when `why_rescan` has something to say, in monotonic seconds."""
        return min(self._rescan_at, self._check_limit_at)

    def why_rescan(self, now: float) -> str:
        """Return why it is time to look through it again; empty if it is not."""
        if self._rescan_at <= now:
            return "interval"
        if self._check_limit_at <= now:
            # A new folder may not have got a watch: have all counted now rather than some time later.
            self._check_limit_at = math.inf
            if self.observer == "native" and not self._shortage and refuses_watches(self.path):
                return "inotify watch limit reached"
        return ""

    # --- what happens to it -----------------------------------------------------------------------

    def has_new_folder(self, now: float) -> None:
        """Take note that a folder has appeared in it."""
        self._check_limit_at = min(self._check_limit_at, now + CHECK_LIMIT_S)

    def begin_rescan(self, now: float) -> None:
        """Take note that it is being looked through."""
        self._rescan_at, self._check_limit_at = now + self._interval_s, math.inf

    def end_rescan(self, folders: int, now: float) -> None:
        """Notice folders that the kernel refused to watch: watchdog passes over them in silence.

        Args:
            folders: how many folders there are in it, itself included.
            now: monotonic seconds.
        """
        if self.observer != "native":
            return
        lacking = folders - self._watch.watched_folders()
        if lacking <= 0:
            if self._shortage:
                self._shortage = ""
                events.WATCH_RECOVERED(path=self.path)
            return
        words = "1 folder is" if lacking == 1 else f"{lacking} folders are"
        reason = f"inotify watch limit reached: {words} not watched"
        if not self._shortage:
            events.WATCH_DEGRADED(path=self.path, reason=reason, hint=LIMIT_HINT)
        elif self._recover_at <= now:
            self._recover_at = now + RECOVER_S
            self._watch.stop()
            self._watch.start()
        self._shortage = reason
        self._rescan_at = min(self._rescan_at, now + self.settings.poll_interval_s)

    def supervise(self, now: float) -> str:
        """Watch again where the watch has been lost; return why it is to be looked through then, empty if not."""
        lost = self._watch.why_lost()
        if lost:
            if self.observer:
                events.WATCH_LOST(path=self.path, reason=lost)
                self._watch.stop()
            return f"watch restarted: {lost}" if self._start(now) else ""
        if self._watch.state.can_recover and self._recover_at <= now:
            self._recover_at = now + RECOVER_S
            if self._watch.recover():
                events.WATCH_RECOVERED(path=self.path)
                return "native watching works again"
        return ""

    def _start(self, now: float) -> bool:
        if not self._watch.start():
            if not self._was_missing:
                reason = why_unwatchable(Path(self.path)) or "it is not there"
                events.WATCH_MISSING(path=self.path, reason=reason)
            self._was_missing = True
            return False
        self._was_missing = False
        state = self._watch.state
        if state.problem:
            hint = LIMIT_HINT if state.can_recover else ""
            events.WATCH_DEGRADED(path=self.path, reason=state.problem, hint=hint)
            self._recover_at = now + RECOVER_S
        events.WATCH_STARTED(path=self.path, observer=state.observer)
        return True
