"""The loop that owns all state.

Watchers, worker processes and signal handlers only put messages into its queue. The loop compares what
is on disk with what the ledger remembers, and acts; a rescan gives the same result as the events would have.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from sda_daemon import __version__, events
from sda_daemon.conversion.clearing import KILLED, SourceCleared, SourcePutBack, SourceStayed, put_back_all
from sda_daemon.conversion.doubles import Doubles, SlidersCopied, WeightsRead
from sda_daemon.conversion.job import JobDone, WorkerFree, WorkerSaid
from sda_daemon.conversion.pool import WorkerPool
from sda_daemon.conversion.queue import Circumstances, ConversionQueue
from sda_daemon.daemon.heartbeat import Heartbeat
from sda_daemon.daemon.messages import ReloadRequested, RetryRequested, StopRequested
from sda_daemon.daemon.report import Reporter
from sda_daemon.errors import LedgerError, LibraryLostError, NothingToWatchError, SdaError
from sda_daemon.intake.intake import Intake
from sda_daemon.library.in_use import InUse
from sda_daemon.library.keeper import MISSING_HINT, Keeper
from sda_daemon.logs import configure_logging
from sda_daemon.service.notify import Notifier
from sda_daemon.settings.advice import advice_on
from sda_daemon.settings.changes import changes
from sda_daemon.settings.loading import LoadedConfig, own_folders, state_folder
from sda_daemon.settings.reload import ConfigFile, ConfigState, ConfigTouched
from sda_daemon.settings.rules import template_digest
from sda_daemon.settings.schema import Settings
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.locks import instance_lock, make_folder
from sda_daemon.state.missing_library import MissingLibrary, find_missing_library, is_forgotten
from sda_daemon.state.open_library import OpenLibrary
from sda_daemon.state.rebuild import rebuild_ledger
from sda_daemon.watching.hints import FileSeen, FolderSeen, LibraryReplaced, LibraryTouched, RescanNeeded
from sda_daemon.watching.reach import why_unwatchable

SUPERVISE_S = 2.0
"""How often the watches are checked for life, in seconds."""
LEDGER_PAUSE_S = 2.0
LONGEST_LEDGER_PAUSE_S = 60.0
"""How long to wait with a ledger that cannot be used, at first and at the longest, in seconds."""
RETRY_SIGNAL = signal.SIGUSR1
"""Sent by `sda-daemon retry` after it has taken failures out of the ledger."""


class Daemon:
    """Watches, converts and publishes until it is told to stop.

    Args:
        config: what to do.
        once: look at everything once, convert what is new, and return.
        notifier: the service manager, if there is one.
    """

    def __init__(self, config: LoadedConfig, *, once: bool = False, notifier: Notifier | None = None) -> None:
        self._config = config
        self._notifier = notifier or Notifier()
        self._once = once
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stop: StopRequested | None = None
        self._supervise_at = 0.0
        self._was_up = False
        self._ledger_pause_s = LEDGER_PAUSE_S
        self._shelves: list[OpenLibrary] = []
        self._state_dir = state_folder(config.settings)
        self._config_file = ConfigFile(config, self._inbox.put)

    def run(self) -> int:
        """Run until stopped (or until all is done, with `once`); return the exit code.

        Raises:
            AlreadyRunningError: another daemon holds the models folder or the state folder.
            NothingToWatchError: none of the watched folders can be watched; with `once`, none is there.
            LibraryLostError: with `once`, the models folder is bare although it was full when the daemon last ran.
            SdaError: a folder cannot be made, locked or read.
        """
        began = time.monotonic()
        with self._signals():
            while not self._live_once():
                pass
        events.DAEMON_STOPPED(
            reason=self._stop.reason if self._stop else "all done",
            uptime_s=round(time.monotonic() - began, 3),
            converted=self._conversions.succeeded,
            failed=self._conversions.failed,
        )
        return 1 if self._once and self._conversions.failed else 0

    def _live_once(self) -> bool:
        """Set everything up and run; True when that was all, False to begin anew.

        It begins anew with another library in place of the old one, and when the ledger could not be used (a full
        disk, say): what is on disk is the truth, and all that follows from it is found again.
        """
        self._again = False
        try:
            with contextlib.ExitStack() as stack:
                self._set_up(stack)
                self._was_up = True
                self._loop()
                self._drain()
        except (sqlite3.Error, LedgerError) as error:
            if not self._was_up or self._once:
                raise LedgerError(f"the ledger cannot be used: {error}", "Is the disk of state_dir full?") from error
            self._pause_for_ledger(error)
            return self._stop is not None
        except SdaError:
            raise
        except Exception as error:
            events.DAEMON_CRASHED(error=f"{type(error).__name__}: {error}")
            raise
        if self._again:
            return self._stop is not None
        self._ledger_pause_s = LEDGER_PAUSE_S
        return True

    def _pause_for_ledger(self, error: Exception) -> None:
        """Wait until it is worth another try with the ledger, or a stop is asked for."""
        pause_s, self._ledger_pause_s = self._ledger_pause_s, min(2 * self._ledger_pause_s, LONGEST_LEDGER_PAUSE_S)
        events.LEDGER_FAILED(reason=str(error), retry_in_s=pause_s)
        end = time.monotonic() + pause_s
        while self._stop is None and (left_s := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                message = self._inbox.get(timeout=min(left_s, 1.0))
                if isinstance(message, StopRequested):
                    self._stop = message
            self._notifier.alive(time.monotonic())

    def _set_up(self, stack: contextlib.ExitStack) -> None:
        """Take the locks and build all parts; what was begun is undone by the stack."""
        settings = self._config.settings
        if self._once and not any(watch.path.is_dir() for watch in settings.watch):
            folders = ", ".join(str(watch.path) for watch in settings.watch)
            raise NothingToWatchError(f"none of the watched folders is there: {folders}", "Check the paths under watch")
        problems = {str(watch.path): why_unwatchable(watch.path) for watch in settings.watch}
        if all(problems.values()):
            reasons = "; ".join(f"{path}: {reason}" for path, reason in problems.items())
            raise NothingToWatchError(f"none of the folders can be watched: {reasons}", "Check the paths under watch")
        self._shelves = []
        loss = find_missing_library(settings.models_dir, self._state_dir)
        if loss is None:
            make_folder(settings.models_dir, "models_dir")
        elif self._once:
            raise LibraryLostError(
                f"{loss.models_dir} is taken to be lost: {loss}", MISSING_HINT[:1].upper() + MISSING_HINT[1:]
            )
        make_folder(self._state_dir, "state_dir")
        stack.callback(self._close_shelves)
        self._shelves = [self._open_shelf(settings, lambda: self._begin(settings, stack), loss)]
        ledger = self._ledger
        if ledger.is_new and loss is None:
            for item in put_back_all({str(watch.path): watch.move_to for watch in settings.watch}):
                events.SOURCE_PUT_BACK(path=item.path, was=item.private, reason=item.reason or KILLED)
            rebuild_ledger(ledger, self._shelves[0].library, [str(watch.path) for watch in settings.watch])
        now = Circumstances(settings, self._shelves[0].library, self._new_pool(settings), self._shelves[0].work_dir)
        self._conversions: ConversionQueue = ConversionQueue(now, ledger, self._inbox.put, retries=not self._once)
        stack.callback(self._conversions.cut_off)
        self._conversions.catch_up()
        self._doubles = Doubles(ledger, self._inbox.put, once=self._once)
        self._in_use = InUse(settings.application.presets, settings.application.history)
        self._intake = Intake(
            ledger,
            self._inbox.put,
            self._conversions.is_taken,
            self._conversions.take,
            self._conversions.warm,
        )
        self._intake.on_done = self._conversions.clear_done
        self._intake.on_aside = self._conversions.put_back
        self._intake.rules = settings.rules
        self._intake.own_folders = own_folders(settings)
        self._intake.template_digest = self._conversions.template_digest
        self._intake.rescan_interval_s = settings.rescan_interval_s
        self._heartbeat = Heartbeat(self._notifier, self._intake, self._conversions)
        self._heartbeat.library_problem = lambda: self._keeper.problem
        self._intake.on_progress = self._heartbeat.turn
        stack.callback(self._intake.stop)
        self._intake.start(settings.watch, live=not self._once)
        self._reporter = Reporter(ledger, self._intake, self._conversions, lambda: self._keeper, self._identity())
        stack.callback(self._reporter.close)
        stack.callback(self._config_file.stop)
        if not self._once:
            self._config_file.start()
        self._heartbeat.ready()

    def _open_shelf(
        self, settings: Settings, on_locked: Callable[[], None] = lambda: None, loss: MissingLibrary | None = None
    ) -> OpenLibrary:
        return OpenLibrary(
            settings.models_dir,
            self._inbox.put,
            settings.rescan_interval_s,
            live=not self._once,
            held={self._state_dir.resolve()} if self._shelves else set(),
            on_locked=on_locked,
            loss=loss,
        )

    def _begin(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        """Take the state folder, once the library is locked."""
        if self._state_dir.resolve() != settings.models_dir.resolve():
            stack.enter_context(instance_lock(self._state_dir))
        self._ledger = Ledger(self._state_dir)
        stack.callback(self._ledger.close)
        events.DAEMON_STARTED(
            pid=os.getpid(),
            version=__version__,
            config=str(self._config.path),
            models_dir=str(settings.models_dir),
            state_dir=str(self._state_dir),
            watches=len(settings.watch),
        )
        if not self._was_up:
            self._advise()
        self._ledger.recover()
        self._ledger.report({"daemon": self._identity()})

    def _advise(self) -> None:
        """Say what is hardly meant in the config that comes into force."""
        for item in advice_on(self._config.settings):
            events.CONFIG_DOUBTFUL(key=item.key, reason=item.message)

    def _identity(self) -> dict[str, Any]:
        """What `status` and `retry` must know of this process."""
        return {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "version": __version__,
            "config": str(self._config.path),
            "models_dir": str(self._config.settings.models_dir),
            "config_state": asdict(self.config_state),
        }

    def _new_pool(self, settings: Settings) -> WorkerPool:
        limits = settings.conversion
        return WorkerPool(
            settings.workers, limits.time_limit_s, limits.memory_limit, lambda text: self._inbox.put(WorkerSaid(text))
        )

    @property
    def _keeper(self) -> Keeper:
        """That of the library which new models go into."""
        return self._shelves[0].keeper

    @property
    def config_state(self) -> ConfigState:
        """When the config was last read, from where, and why a newer version was refused."""
        return self._config_file.state

    # --- another config -----------------------------------------------------------------------------

    def _reload(self, config: LoadedConfig) -> None:
        """Put another config into force: first everything that may fail, then the rest."""
        old, new = self._config.settings, config.settings
        kept = [] if state_folder(new) == self._state_dir else ["state_dir"]
        try:
            shelf = self._shelf_for(new)
        except (SdaError, OSError) as error:
            self._config_file.refuse(error)
            return
        if kept:
            hint = f"it is still {self._state_dir}; restart the daemon to use {state_folder(new)}"
            events.CONFIG_RESTART_REQUIRED(keys=kept, hint=hint)
        new = new.model_copy(update={"state_dir": old.state_dir})
        self._commit(replace(config, settings=new), shelf)
        self._config_file.accept(config)
        events.CONFIG_RELOADED(path=str(config.path), changed=list(changes(old, new)))
        self._advise()

    def _shelf_for(self, settings: Settings) -> OpenLibrary:
        """Return the shelf of a models folder: the one in use, one that is still being emptied, or a new one."""
        folder = settings.models_dir.resolve()
        known = next((item for item in self._shelves if item.models_dir.resolve() == folder), None)
        return known or self._open_shelf(settings)

    def _commit(self, config: LoadedConfig, shelf: OpenLibrary) -> None:
        """Nothing here can fail for a reason that lies in the config."""
        old, new = self._config.settings, config.settings
        self._config = config
        if new.logging != old.logging:
            configure_logging(new.logging.level, new.logging.format)
        self._shelves = [shelf, *(item for item in self._shelves if item is not shelf)]
        for item in self._shelves:
            item.keeper.interval_s = new.rescan_interval_s
        is_same = (old.workers, old.conversion) == (new.workers, new.conversion)
        pool = self._conversions.pool if is_same else self._new_pool(new)
        self._intake.rescan_interval_s = new.rescan_interval_s
        now = Circumstances(new, shelf.library, pool, shelf.work_dir)
        self._intake.template_digest = template_digest(new.metadata, new.rules)
        self._intake.configure(new.watch, new.rules, own_folders(new))
        self._conversions.configure(now, self._intake.wants)
        self._in_use = InUse(new.application.presets, new.application.history)
        self._intake.rescan_all("config reloaded")

    def _publish_config_state(self) -> None:
        state = asdict(self.config_state)
        if self._reporter.identity["config_state"] != state:
            models_dir = str(self._config.settings.models_dir)
            self._reporter.identity = {**self._reporter.identity, "models_dir": models_dir, "config_state": state}

    def _close_shelves(self) -> None:
        for shelf in self._shelves:
            shelf.close()

    def _let_go(self) -> None:
        """Close libraries of earlier configs once the last conversion for them is done."""
        for shelf in [shelf for shelf in self._shelves[1:] if not self._conversions.uses(shelf.library)]:
            self._shelves.remove(shelf)
            shelf.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into messages; SIGIO is what the kernel sends about broken leases."""

        def request(number: int, _frame: FrameType | None) -> None:
            self._inbox.put(StopRequested(signal.Signals(number).name))

        def reload(_number: int, _frame: FrameType | None) -> None:
            self._inbox.put(ReloadRequested())

        def retry(_number: int, _frame: FrameType | None) -> None:
            self._inbox.put(RetryRequested())

        before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, reload)
        before[RETRY_SIGNAL] = signal.signal(RETRY_SIGNAL, retry)
        before[signal.SIGIO] = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- the loop ---------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._is_stopping():
            for message in self._receive(self._pause_s()):
                self._handle(message)
            if not self._is_stopping():
                self._tick(time.monotonic())
                if self._is_all_done():
                    self._intake.report_unfinished()
                    break

    def _is_stopping(self) -> bool:
        return self._stop is not None or self._again

    def _is_all_done(self) -> bool:
        is_quiet = self._intake.is_quiet and self._conversions.is_idle and self._conversions.clearing.is_idle
        return self._once and is_quiet and self._doubles.is_idle and self._inbox.empty()

    def _pause_s(self) -> float:
        if self._is_all_done():
            return 0.0
        now = time.monotonic()
        moments = [self._heartbeat.next_moment(), *(shelf.keeper.next_moment() for shelf in self._shelves)]
        if not self._once:
            moments += [self._supervise_at, self._config_file.next_moment()]
        moments += [at for at in (self._intake.next_moment(), self._conversions.next_moment()) if at is not None]
        return max(0.0, min(moments) - now)

    def _receive(self, pause_s: float) -> list[object]:
        """Wait for messages and return all that are there; finished conversions are dealt with together."""
        messages: list[object] = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._inbox.get(timeout=pause_s))
            while True:
                messages.append(self._inbox.get_nowait())
        finished, is_last = [], False
        for message in messages:
            match message:
                case WorkerFree(job):
                    self._conversions.worker_free(job)
                case JobDone(outcome):
                    finished.append(outcome)
                case StopRequested():  # at once: what comes next may fail, and the wish must not be lost
                    self._stop = self._stop or message
                case LibraryReplaced():
                    is_last = True
        hold = is_last or self._is_stopping() or self._keeper.is_lost or self._must_know_first
        self._conversions.take_outcomes(finished, time.monotonic(), hold=hold)
        return [message for message in messages if not isinstance(message, JobDone | WorkerFree)]

    def _handle(self, message: object) -> None:
        match message:
            case FileSeen() | FolderSeen() | RescanNeeded():
                self._intake.handle(message)
            case LibraryTouched():
                for shelf in self._shelves:
                    shelf.keeper.touched(time.monotonic())
            case LibraryReplaced():
                self._again = True  # locks, work folder and index are those of the old folder: begin anew
            case SourceCleared() | SourceStayed() | SourcePutBack():
                self._conversions.source_said(message)
            case WeightsRead() | SlidersCopied():
                self._doubles.done(message, time.monotonic())
            case WorkerSaid(text):
                events.WORKER_OUTPUT(text=text)
            case RetryRequested():
                self._conversions.retry_now()
                self._intake.rescan_all("retry")
            case ConfigTouched():
                self._config_file.touched(time.monotonic())
            case ReloadRequested():
                self._read_again()
            case StopRequested():
                self._stop = message
            case _:
                raise TypeError(f"no such message: {message!r}")

    def _read_again(self) -> None:
        """Read the config although nothing may have changed; with `once` there is no time for that."""
        if not self._once:
            self._heartbeat.reloading()
            self._config_file.ask(time.monotonic())

    def _tick(self, now: float) -> None:
        self._intake.tick(now)
        for shelf in self._shelves:
            shelf.keeper.tick(now)
        if not self._once and self._supervise_at <= now:
            self._supervise_at = now + SUPERVISE_S
            self._intake.supervise()
            self._keeper.supervise()
            if self._keeper.is_lost:
                # Someone may have said that its models were deleted on purpose.
                self._again = self._again or is_forgotten(self._ledger, self._keeper.models_dir)
            elif not self._shelves[0].is_whole():
                self._again = True  # the lock or the work folder was removed by hand: take them anew
            self._config_file.supervise(now)
        is_free = self._conversions.is_idle and self._intake.waiting == 0
        self._doubles.tick(
            now, self._shelves[0], self._conversions.pool, self._in_use, is_free=is_free or self._must_know_first
        )
        expecting = self._intake.waiting > 0 or self._doubles.is_busy
        self._conversions.tick(now, expecting=expecting, hold=self._keeper.is_lost or self._must_know_first)
        if not self._once:
            config = self._config_file.tick(now)
            if config is not None:
                self._reload(config)
            if not self._config_file.is_asked:
                self._heartbeat.reloaded()
            self._publish_config_state()
        self._let_go()
        self._reporter.tick(now)
        self._heartbeat.tick(now)

    @property
    def _must_know_first(self) -> bool:
        """Whether nothing is to be converted before it is known which weights the library holds: a run that ends."""
        return self._once and not self._conversions.running and not self._doubles.is_idle

    def _drain(self) -> None:
        """After a stop was asked for: let running conversions finish, within the grace time."""
        running = self._conversions.running
        if self._stop is not None:
            self._heartbeat.stopping()
            waiting = len(self._conversions.ready) + self._intake.waiting
            events.DAEMON_STOPPING(reason=self._stop.reason, running=len(running), waiting=waiting)
        deadline = time.monotonic() + self._config.settings.stop_grace_s
        while running and (now := time.monotonic()) < deadline:
            self._heartbeat.drain(now, deadline)
            messages = self._receive(max(0.0, min(0.5, deadline - now)))
            stops = [message for message in messages if isinstance(message, StopRequested)]
            if stops:
                self._stop = stops[0]
                break
        self._conversions.cut_off()
        for message in self._receive(0.0):
            if isinstance(message, SourceCleared | SourceStayed | SourcePutBack):
                self._conversions.source_said(message)
