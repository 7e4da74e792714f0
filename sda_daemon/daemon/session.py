"""One life of the daemon: everything that it needs, built in one order and let go in the opposite one.

Watchers, worker processes, threads and signal handlers only put messages into its inbox. Its loop compares what is on
disk with what the ledger remembers, and acts; a rescan gives the same result as the events would have. Parts are asked
and return values: `Session.turn` is the one place where a checkpoint's way can be read.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, assert_never

from sda_daemon import __version__, events
from sda_daemon.conversion.clearing import (
    KILLED,
    Clearing,
    SourceCleared,
    SourcePutBack,
    SourceStayed,
    put_back_all,
)
from sda_daemon.conversion.doubles import Doubles, SlidersCopied, WeightsRead
from sda_daemon.conversion.job import JobDone, WorkerFree, WorkerSaid
from sda_daemon.conversion.publisher import Publisher, Result
from sda_daemon.conversion.queue import ConversionQueue
from sda_daemon.conversion.retention import Retention
from sda_daemon.conversion.work import RunningWork
from sda_daemon.daemon.inbox import Inbox
from sda_daemon.daemon.messages import Message, ReloadRequested, RetryRequested, StopRequested
from sda_daemon.daemon.report import Reporter
from sda_daemon.daemon.setup import Process, advise, check_watches, find_missing, run_context
from sda_daemon.daemon.snapshot import Snapshot, Tally, take_snapshot
from sda_daemon.errors import SdaError
from sda_daemon.intake.intake import Intake
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.keeper import Keeper
from sda_daemon.logs import configure_logging
from sda_daemon.settings.changes import changes
from sda_daemon.settings.loading import LoadedConfig, state_folder
from sda_daemon.settings.reload import ConfigTouched
from sda_daemon.settings.run_config import RunConfig
from sda_daemon.settings.schema import Settings
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.locks import instance_lock, make_folder
from sda_daemon.state.missing_library import MissingLibrary, is_forgotten
from sda_daemon.state.open_library import OpenLibrary, locked_library
from sda_daemon.state.rebuild import rebuild_ledger
from sda_daemon.watching.hints import FileSeen, FolderSeen, Hint, LibraryTouched, RescanNeeded

SUPERVISE_S = 2.0
"""How often the watches are checked for life, in seconds."""
_DRAIN_TURN_S = 0.5
"""Longest pause between two looks at what still runs while the daemon ends, in seconds."""


class Ending(Enum):
    """Why a session is over."""

    STOPPED = auto()
    """Someone has asked for it."""
    ALL_DONE = auto()
    """There was nothing left to do, and nothing more was wanted."""
    BEGIN_ANEW = auto()
    """Library or locks are others now: a new session takes them."""


class Session:
    """One life of the daemon.

    Args:
        stack: takes what is to be done in the end, in the opposite order.
        process: what outlives this session.
        config: the config in force, until another one is.
        inbox: of this session alone.
        tally: what was done before.
        now: monotonic seconds.
        is_first: whether the daemon has just been started.

    Raises:
        AlreadyRunningError: another daemon holds the models folder or the state folder.
        NothingToWatchError: none of the watched folders can be watched; with `once`, none is there.
        LibraryLostError: with `once`, the models folder is bare although it was full when the daemon last ran.
        SdaError: a folder cannot be made, locked or read.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        process: Process,
        config: LoadedConfig,
        inbox: Inbox,
        tally: Tally,
        now: float,
        *,
        is_first: bool,
    ) -> None:
        settings = config.settings
        self.config, self.tally = config, tally
        self._process, self._inbox, self._once = process, inbox, process.once
        self._stop: StopRequested | None = None
        self._must_begin_anew = False
        self._look_again: list[FileSeen] = []
        self._has_ended = False
        self._supervise_at = now
        self._state_dir = process.state_dir
        check_watches(settings, once=process.once)

        # The library first, then the state folder; but what stands in for a missing library lies in that.
        missing = find_missing(settings, self._state_dir, once=process.once)
        if missing is not None:
            self._lock_state(stack)
        lock = stack.enter_context(contextlib.ExitStack())
        library = lock.enter_context(locked_library(settings.models_dir, missing))
        if missing is None:
            self._lock_state(stack, settings.models_dir)
        self._ledger = stack.enter_context(contextlib.closing(Ledger(self._state_dir)))
        self._begin_ledger(is_first=is_first)
        self._libraries: list[OpenLibrary] = []
        stack.callback(self._close_libraries)
        self._libraries.append(self._open(lock, library, settings, now, missing))
        if self._ledger.is_new and missing is None:
            self._rebuild_ledger(settings)

        # What works, from the end of a checkpoint's way to its beginning: each part asks those that were made before.
        self._clearing = Clearing(inbox.put, retries=not process.once)
        stack.callback(self._clearing.stop)
        self._retention = Retention(self._ledger, self._clearing)
        self._publisher = Publisher(self._ledger, retries=not process.once)
        pool = process.make_pool(settings, inbox)
        self._context = run_context(RunConfig.of(settings), self._libraries[0], pool)
        self._queue = ConversionQueue(self._context, self._ledger, inbox.put, now, retries=not process.once)
        stack.callback(self._queue.cut_off)
        self._retention.configure(self._context.config)
        self._retention.catch_up(self._context)
        self._doubles = Doubles(self._ledger, inbox.put, once=process.once)
        self._intake = Intake(
            self._context.config, self._ledger, self._queue.is_taken, inbox.put, now, live=not process.once
        )
        stack.callback(self._intake.stop)
        self._reporter = Reporter(self._ledger)
        self._seen = self._look()
        stack.callback(lambda: self._reporter.close(self._look().document(self._identity())))
        stack.callback(process.config_file.stop)
        if not process.once:
            process.config_file.start(inbox.put)
        process.heartbeat.ready(self._seen.progress(tally, now), now)

    # --- a life -----------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Turn until it is over, and let running conversions finish, within the grace time."""
        while (ending := self._ending()) is None:
            messages = self._inbox.take(self.pause_s(time.monotonic()))
            self.turn(messages, time.monotonic())
            self._beat(time.monotonic())  # a turn may have taken its time
        if ending is Ending.ALL_DONE:
            self._intake.report_unfinished()
        self._drain()
        return ending

    def turn(self, messages: Sequence[Message], now: float) -> None:
        """Do what there is to do: from hints to settled checkpoints, to models, to what follows from them.

        Args:
            messages: what has come to the inbox.
            now: monotonic seconds.
        """
        hints = self._take_in(messages, now)  # requests, and the news of workers and threads
        if self._stop is not None:
            return  # nothing more is begun: what runs is brought to its end by `run`
        found = self._intake.poll(hints, now)  # hint → stat → settling → settled
        self._retention.look_after(found.done, found.asides, self._context)  # what earlier lives have left
        self._queue.add(found.settled, now)  # policy.decide, once, with the ledger's row
        self._keep_libraries(now)  # the index made true; whose weights are there twice
        turn = self._queue.poll(now, expecting=self._is_expecting, hold=self._must_hold)  # begun; ended, gathered
        self._finish(turn.ended, now)  # file, index, ledger, and then sources and superseded models
        self._look_again += turn.hints
        self._supervise(now)
        self._follow_config(now)
        self._report(now)

    def _finish(self, ended: Sequence[RunningWork], now: float) -> None:
        """Bring conversions that have ended to their end, in the order of durable steps: a crash may come between."""
        self._has_ended = bool(ended)
        if not ended:
            return
        result = self._publisher.publish(ended, self._context, now, is_cut=self._queue.is_cut)
        self._remember(result)
        self._retention.apply(result, self._context)
        self._queue.put_back(result.again)
        self._queue.close_retired()
        self._look_again += result.hints
        self._count(result, now)

    def _remember(self, result: Result) -> None:
        """Put into the ledger what has become of conversions."""
        self._retention.remember(result)
        self._ledger.forget(result.forgotten)
        self._ledger.put(result.rows)

    def _take_in(self, messages: Sequence[Message], now: float) -> list[Hint]:
        """Take note of messages; return the hints among them, with the files that are to be looked at again."""
        hints: list[Hint] = list(self._look_again)
        self._look_again = []
        for message in messages:
            match message:
                case FileSeen() | FolderSeen() | RescanNeeded():
                    hints.append(message)
                case LibraryTouched():
                    for opened in self._libraries:
                        opened.keeper.touched(now)
                case WorkerFree() | JobDone():
                    self._queue.take(message, now)
                case WorkerSaid(text):
                    events.WORKER_OUTPUT(text=text)
                case SourceCleared() | SourceStayed() | SourcePutBack():
                    hints += self._retention.take(message, self._context)
                case WeightsRead() | SlidersCopied():
                    self._doubles.take(message, now)
                case ConfigTouched():
                    self._process.config_file.touched(now)
                case RetryRequested():
                    self._queue.retry_now()
                    self._intake.rescan_all("retry")
                case ReloadRequested():
                    self._read_config_again(now)
                case StopRequested():
                    self._stop = message
                case _:
                    assert_never(message)
        return hints

    def _ending(self) -> Ending | None:
        if self._stop is not None:
            return Ending.STOPPED
        if self._must_begin_anew:
            return Ending.BEGIN_ANEW
        return Ending.ALL_DONE if self._is_all_done else None

    @property
    def _is_all_done(self) -> bool:
        is_quiet = self._intake.is_quiet and self._queue.is_idle and self._clearing.is_idle and self._doubles.is_idle
        return self._once and is_quiet and not self._look_again and self._inbox.is_empty

    @property
    def _is_expecting(self) -> bool:
        """Whether checkpoints are about to settle, or workers have something else to do."""
        return self._intake.waiting > 0 or self._doubles.is_busy

    @property
    def _must_hold(self) -> bool:
        """Whether nothing is to be begun: there is no place for it, or no time."""
        return self._ending() is not None or self._keeper.is_lost or self._must_know_first

    @property
    def _must_know_first(self) -> bool:
        """Whether nothing is to be converted before it is known which weights the library holds: a run that ends."""
        return self._once and not self._queue.running and not self._doubles.is_idle

    @property
    def _keeper(self) -> Keeper:
        """That of the library which new models go into."""
        return self._libraries[0].keeper

    def pause_s(self, now: float) -> float:
        """Return how long nothing needs to be done, in seconds.

        Where something has ended, there may be room for what waits; and a run that ends must know the library first.
        """
        may_learn = self._must_know_first and not (self._doubles.is_busy or self._keeper.is_lost)
        if self._look_again or self._has_ended or may_learn:
            return 0.0
        moments = [self._process.heartbeat.next_moment(), *(item.keeper.next_moment() for item in self._libraries)]
        if not self._once:
            moments += [self._supervise_at, self._process.config_file.next_moment()]
        moments += [at for at in (self._intake.next_moment(), self._queue.next_moment()) if at is not None]
        return max(0.0, min(moments) - now)

    # --- the parts of a turn ------------------------------------------------------------------------

    def _keep_libraries(self, now: float) -> None:
        """Make indexes agree with their folders, and let workers that are free find out which weights are there."""
        for opened in self._libraries:
            opened.keeper.poll(now)
        is_free = self._queue.is_idle and self._intake.waiting == 0
        context = self._context
        self._doubles.poll(
            now, self._libraries[0], context.pool, context.in_use, is_free=is_free or self._must_know_first
        )

    def _supervise(self, now: float) -> None:
        """See to it that the watches live, and that locks and folders are still the ones that were taken."""
        if self._once or now < self._supervise_at:
            return
        self._supervise_at = now + SUPERVISE_S
        self._intake.supervise(now)
        is_another = self._keeper.supervise(now)
        if self._keeper.is_lost:
            # Someone may have said that its models were deleted on purpose.
            is_another = is_another or is_forgotten(self._ledger, self._keeper.models_dir)
        else:
            # Lock or work folder may have been removed by hand: then they are taken anew.
            is_another = is_another or not self._libraries[0].is_whole()
        self._must_begin_anew = self._must_begin_anew or is_another
        self._process.config_file.supervise(now)

    def _count(self, result: Result, now: float) -> None:
        before = self.tally
        self.tally = replace(
            before, succeeded=before.succeeded + result.succeeded, failed=before.failed + result.failed
        )
        if result.newest:
            self.tally = replace(self.tally, newest=result.newest, newest_at=now)

    def _report(self, now: float) -> None:
        """Tell `status` how it is going."""
        self._let_go_of_libraries()
        self._seen = self._look()
        if self._reporter.is_due(now):
            self._reporter.poll(self._seen.document(self._identity()), now)

    def _beat(self, now: float) -> None:
        """Tell the service manager that the loop turns, and what it is at."""
        progress = self._seen.progress(self.tally, now)
        if not self._once and not self._process.config_file.is_asked:
            self._process.heartbeat.reloaded(progress, now)
        self._process.heartbeat.poll(progress, now)

    def _look(self) -> Snapshot:
        return take_snapshot(self._intake, self._queue, self._keeper)

    def _identity(self) -> dict[str, Any]:
        """What `status` and `retry` must know of this process."""
        return {
            "pid": os.getpid(),
            "started_at": self._process.started_at,
            "version": __version__,
            "config": str(self.config.path),
            "models_dir": str(self.config.settings.models_dir),
            "config_state": asdict(self._process.config_file.state),
        }

    def _drain(self) -> None:
        """Let running conversions finish, within the grace time; a second request to stop ends that at once."""
        running, heartbeat = self._queue.running, self._process.heartbeat
        if self._stop is not None:
            heartbeat.stopping()
            waiting = self._queue.waiting + self._intake.waiting
            events.DAEMON_STOPPING(reason=self._stop.reason, running=len(running), waiting=waiting)
        deadline = time.monotonic() + self.config.settings.stop_grace_s
        first = self._stop
        self._finish(self._queue.poll(time.monotonic(), hold=True).ended, time.monotonic())
        while running and (now := time.monotonic()) < deadline and self._stop is first:
            heartbeat.drain(len(running), now, deadline)
            self._take_in(self._inbox.take(min(_DRAIN_TURN_S, deadline - now)), time.monotonic())
            self._finish(self._queue.poll(time.monotonic(), hold=True).ended, time.monotonic())
        self._clearing.stop()
        self._queue.cut_off()
        self._take_in(self._inbox.take(0.0), time.monotonic())
        self._finish(self._queue.poll(time.monotonic(), hold=True).ended, time.monotonic())

    # --- another config -----------------------------------------------------------------------------

    def _read_config_again(self, now: float) -> None:
        """Read the config although nothing may have changed; with `once` there is no time for that."""
        if not self._once:
            self._process.heartbeat.reloading()
            self._process.config_file.ask(now)

    def _follow_config(self, now: float) -> None:
        """Put another config into force, if there is one: first everything that may fail, then the rest."""
        config = None if self._once else self._process.config_file.poll(now)
        if config is None:
            return
        old, new = self.config.settings, config.settings
        try:
            opened = self._library_for(new, now)
        except (SdaError, OSError) as error:
            self._process.config_file.refuse(error)
            return
        if state_folder(new) != self._state_dir:
            hint = f"it is still {self._state_dir}; restart the daemon to use {state_folder(new)}"
            events.CONFIG_RESTART_REQUIRED(keys=["state_dir"], hint=hint)
        new = new.model_copy(update={"state_dir": old.state_dir})
        self._put_into_force(replace(config, settings=new), opened, now)
        self._process.config_file.accept(config)
        events.CONFIG_RELOADED(path=str(config.path), changed=list(changes(old, new)))
        advise(self.config)

    def _library_for(self, settings: Settings, now: float) -> OpenLibrary:
        """Return the library of a models folder: the one in use, one that is still being emptied, or a new one."""
        folder = settings.models_dir.resolve()
        known = next((item for item in self._libraries if item.models_dir.resolve() == folder), None)
        if known is not None:
            return known
        with contextlib.ExitStack() as lock:
            library = lock.enter_context(locked_library(settings.models_dir, held={self._state_dir.resolve()}))
            return self._open(lock, library, settings, now)

    def _put_into_force(self, config: LoadedConfig, opened: OpenLibrary, now: float) -> None:
        """Nothing here can fail for a reason that lies in the config."""
        old, new = self.config.settings, config.settings
        self.config = config
        if new.logging != old.logging:
            configure_logging(new.logging.level, new.logging.format)
        self._libraries = [opened, *(item for item in self._libraries if item is not opened)]
        for item in self._libraries:
            item.keeper.configure(new.rescan_interval_s)
        is_same = (old.workers, old.conversion) == (new.workers, new.conversion)
        pool = self._context.pool if is_same else self._process.make_pool(new, self._inbox)
        self._context = run_context(RunConfig.of(new), opened, pool)
        self._intake.configure(self._context.config, now)
        self._queue.configure(self._context, self._intake.wants)
        self._queue.close_retired()
        self._retention.configure(self._context.config)

    # --- what is taken and let go -------------------------------------------------------------------

    def _open(
        self,
        lock: contextlib.ExitStack,
        library: ModelLibrary,
        settings: Settings,
        now: float,
        missing: MissingLibrary | None = None,
    ) -> OpenLibrary:
        interval_s = settings.rescan_interval_s
        return OpenLibrary(lock, library, self._inbox.put, interval_s, now, live=not self._once, missing=missing)

    def _close_libraries(self) -> None:
        for opened in self._libraries:
            opened.close()

    def _let_go_of_libraries(self) -> None:
        """Close libraries of earlier configs once the last conversion for them is done."""
        for opened in [item for item in self._libraries[1:] if not self._queue.uses(item.library)]:
            self._libraries.remove(opened)
            opened.close()

    def _lock_state(self, stack: contextlib.ExitStack, models_dir: Path | None = None) -> None:
        """Make the state folder and lock it, unless it is the models folder, which is locked already."""
        make_folder(self._state_dir, "state_dir")
        if models_dir is None or self._state_dir.resolve() != models_dir.resolve():
            stack.enter_context(instance_lock(self._state_dir))

    def _begin_ledger(self, *, is_first: bool) -> None:
        """Say who uses the ledger from now on, and what a killed daemon was at."""
        settings = self.config.settings
        events.DAEMON_STARTED(
            pid=os.getpid(),
            version=__version__,
            config=str(self.config.path),
            models_dir=str(settings.models_dir),
            state_dir=str(self._state_dir),
            watches=len(settings.watch),
        )
        if is_first:
            advise(self.config)
        self._ledger.recover()
        self._ledger.report({"daemon": self._identity()})

    def _rebuild_ledger(self, settings: Settings) -> None:
        """Fill a ledger that has been lost from what the models say of their origin."""
        for item in put_back_all({str(watch.path): watch.move_to for watch in settings.watch}):
            events.SOURCE_PUT_BACK(path=item.path, was=item.private, reason=item.reason or KILLED)
        rebuild_ledger(self._ledger, self._libraries[0].library, [str(watch.path) for watch in settings.watch])
