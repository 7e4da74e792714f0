"""The process: its signals, and its lives one after another."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType

from sda_daemon import events
from sda_daemon.daemon.heartbeat import Heartbeat
from sda_daemon.daemon.inbox import Inbox
from sda_daemon.daemon.messages import ReloadRequested, Request, RetryRequested, StopRequested
from sda_daemon.daemon.session import Ending, Session
from sda_daemon.daemon.setup import Process, worker_pool
from sda_daemon.daemon.signals import RETRY_SIGNAL
from sda_daemon.daemon.snapshot import Tally
from sda_daemon.errors import LedgerError, SdaError
from sda_daemon.service.notify import Notifier
from sda_daemon.settings.loading import LoadedConfig, state_folder
from sda_daemon.settings.reload import ConfigFile

LEDGER_PAUSE_S = 2.0
LONGEST_LEDGER_PAUSE_S = 60.0
"""How long to wait with a ledger that cannot be used, at first and at the longest, in seconds."""
_ALIVE_S = 1.0


class Daemon:
    """Watches, converts and publishes until it is told to stop.

    Args:
        config: what to do.
        once: look at everything once, convert what is new, and return.
        notifier: the service manager, if there is one.
    """

    def __init__(self, config: LoadedConfig, *, once: bool = False, notifier: Notifier | None = None) -> None:
        self._config = config
        self._once = once
        self._notifier = notifier or Notifier()
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._process = Process(
            ConfigFile(config), Heartbeat(self._notifier), state_folder(config.settings), started_at, once, worker_pool
        )
        self._inbox = Inbox()
        self._stop: StopRequested | None = None
        self._tally = Tally()
        self._was_up = False
        self._ledger_pause_s = LEDGER_PAUSE_S

    def run(self) -> int:
        """Run until stopped (or until all is done, with `once`); return the exit code.

        Raises:
            SdaError: it cannot begin; see `Session`.
        """
        began = time.monotonic()
        with self._signals():
            while self._stop is None and self._live() is Ending.BEGIN_ANEW:
                pass
        events.DAEMON_STOPPED(
            reason=self._stop.reason if self._stop else "all done",
            uptime_s=round(time.monotonic() - began, 3),
            converted=self._tally.succeeded,
            failed=self._tally.failed,
        )
        return 1 if self._once and self._tally.failed else 0

    def _live(self) -> Ending:
        """Live one life.

        Another one is to follow with another library in place of the old one, and when the ledger could not be used (a
        full disk, say): what is on disk is the truth, and all that follows from it is found again.
        """
        self._inbox = inbox = Inbox()
        if self._stop is not None:  # it came before this inbox was there
            return Ending.STOPPED
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(inbox.close)
                session = Session(
                    stack, self._process, self._config, inbox, self._tally, time.monotonic(), is_first=not self._was_up
                )
                self._was_up = True
                stack.callback(self._remember, session)
                ending = session.run()
        except (sqlite3.Error, LedgerError) as error:
            if not self._was_up or self._once:
                raise LedgerError(f"the ledger cannot be used: {error}", "Is the disk of state_dir full?") from error
            self._pause_for_ledger(error)
            return Ending.BEGIN_ANEW
        except SdaError:
            raise
        except Exception as error:
            events.DAEMON_CRASHED(error=f"{type(error).__name__}: {error}")
            raise
        self._ledger_pause_s = LEDGER_PAUSE_S
        return ending

    def _remember(self, session: Session) -> None:
        """Keep what the next life begins with."""
        self._config, self._tally = session.config, session.tally

    def _pause_for_ledger(self, error: Exception) -> None:
        """Wait until it is worth another try with the ledger, or a stop is asked for."""
        pause_s, self._ledger_pause_s = self._ledger_pause_s, min(2 * self._ledger_pause_s, LONGEST_LEDGER_PAUSE_S)
        events.LEDGER_FAILED(reason=str(error), retry_in_s=pause_s)
        end = time.monotonic() + pause_s
        self._inbox = Inbox()
        while self._stop is None and (left_s := end - time.monotonic()) > 0:
            self._inbox.take(min(left_s, _ALIVE_S))
            self._notifier.alive(time.monotonic())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into messages; SIGIO is what the kernel sends about broken leases."""

        def stop(number: int, _frame: FrameType | None) -> None:
            request = StopRequested(signal.Signals(number).name)
            self._stop = self._stop or request  # also where a life has just ended, and its inbox with it
            self._inbox.put(request)

        def passing_on(request: Request) -> signal._HANDLER:
            return lambda _number, _frame: self._inbox.put(request)

        handlers: dict[signal.Signals, signal._HANDLER] = {
            signal.SIGTERM: stop,
            signal.SIGINT: stop,
            signal.SIGHUP: passing_on(ReloadRequested()),
            RETRY_SIGNAL: passing_on(RetryRequested()),
            signal.SIGIO: signal.SIG_IGN,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
