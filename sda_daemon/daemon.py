"""The daemon: one loop that owns all state.

Watchers, worker processes and signal handlers only put messages into its queue. The loop compares what
is on disk with what the ledger remembers, and acts; a rescan gives the same result as the events would have.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from sda_daemon import __version__, events
from sda_daemon.config import LoadedConfig, state_folder
from sda_daemon.conversion.job import ConversionJob, Converted, Failed, Outcome
from sda_daemon.conversion.ledger import Ledger
from sda_daemon.conversion.policy import Convert, GiveUp, LedgerRow, RetryIn, Status, after_failure, decide
from sda_daemon.conversion.pool import WorkerPool
from sda_daemon.conversion.publish import Action, Published, publish
from sda_daemon.errors import AlreadyRunningError, LibraryError, NothingToWatchError, SdaError
from sda_daemon.files import close_work_folder, open_work_folder, sweep_work_folders
from sda_daemon.intake.messages import FileSeen, FolderSeen, LibraryTouched, RescanNeeded
from sda_daemon.intake.probe import look, why_unfinished
from sda_daemon.intake.scan import CheckpointNames, scan_checkpoints
from sda_daemon.intake.settling import Incomplete, Settled, Settling, Timing
from sda_daemon.intake.watcher import OverflowListener, RootWatch
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.repair import FindingKind
from sda_daemon.settings.schema import Settings, WatchSettings
from sda_daemon.signature import FileSignature
from sda_daemon.templates import template_digest

INSTANCE_LOCK_NAME = ".sda-daemon.lock"
SUPERVISE_S = 2.0
FOLDER_RELOOK_S = (0.5, 2.0)
"""A new folder is looked into again after these pauses: files can come before its watch is in place."""
LIBRARY_REPAIR_DELAY_S = 1.0
"""Outside changes of the models folder are given this long to be finished before the index is repaired."""
MASS_LOSS_SHARE = 0.5
MASS_LOSS_COUNT = 3


@dataclass(frozen=True, slots=True)
class JobDone:
    """A worker is done with a job."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Someone wants the daemon to stop."""

    reason: str


@dataclass(slots=True)
class _Root:
    """A watched folder and what belongs to it."""

    settings: WatchSettings
    path: str
    names: CheckpointNames
    watch: RootWatch
    timing: Timing
    was_missing: bool = False


@dataclass(frozen=True, slots=True)
class _Ready:
    """A checkpoint whose conversion waits for a free worker."""

    path: str
    root: str
    signature: FileSignature
    attempt: int


class Daemon:
    """Watches, converts and publishes until it is told to stop.

    Args:
        config: what to do.
        once: look at everything once, convert what is new, and return.

    Raises:
        AlreadyRunningError: another daemon holds the models folder or the state folder.
        SdaError: a folder cannot be made or opened.

    """

    def __init__(self, config: LoadedConfig, *, once: bool = False) -> None:
        self._config = config
        self._settings: Settings = config.settings
        self._once = once
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._settling = Settling()
        self._ready: deque[_Ready] = deque()
        self._running: dict[str, _Ready] = {}
        self._retries: dict[str, tuple[float, str]] = {}
        self._relooks: list[tuple[float, FolderSeen]] = []
        self._rescan_at: dict[str, float] = {}
        self._repair_at: float | None = None
        self._stop: StopRequested | None = None
        self._failed = 0
        self._converted = 0
        self._template_digest = template_digest(self._settings.metadata)
        self._job_count = 0
        self._idle_since = time.monotonic()

    # --- life -------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped (or until all is done, with `once`); return the exit code."""
        began = time.monotonic()
        state_dir = state_folder(self._settings)
        with contextlib.ExitStack() as stack:
            _make_folder(self._settings.models_dir, "models_dir")
            _make_folder(state_dir, "state_dir")
            stack.enter_context(_instance_lock(self._settings.models_dir))
            if state_dir.resolve() != self._settings.models_dir.resolve():
                stack.enter_context(_instance_lock(state_dir))
            stack.enter_context(self._signals())
            self._ledger = Ledger(state_dir)
            stack.callback(self._ledger.close)
            self._library = ModelLibrary(self._settings.models_dir)
            self._sweep()
            self._work_dir, descriptor = open_work_folder(self._settings.models_dir)
            stack.callback(close_work_folder, self._work_dir, descriptor)
            self._pool = self._make_pool()
            stack.callback(self._pool.close)
            stack.callback(self._stop_watching)
            events.DAEMON_STARTED(
                pid=os.getpid(),
                version=__version__,
                config=str(self._config.path),
                models_dir=str(self._settings.models_dir),
                state_dir=str(state_dir),
                watches=len(self._settings.watch),
            )
            self._ledger.recover()
            self._start_watching()
            self._repair_library()
            self._loop()
            self._drain()
        reason = self._stop.reason if self._stop else "all done"
        events.DAEMON_STOPPED(
            reason=reason,
            uptime_s=round(time.monotonic() - began, 3),
            converted=self._converted,
            failed=self._failed,
        )
        return 1 if self._once and self._failed else 0

    def _make_pool(self) -> WorkerPool:
        conversion = self._settings.conversion
        return WorkerPool(self._settings.workers, conversion.time_limit_s, conversion.memory_limit)

    def _sweep(self) -> None:
        removed = sweep_work_folders(self._settings.models_dir)
        if removed:
            events.LIBRARY_SWEPT(removed=removed)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into messages; SIGIO is what the kernel sends about broken leases."""

        def request(number: int, _frame: FrameType | None) -> None:
            self._inbox.put(StopRequested(signal.Signals(number).name))

        handlers = {signal.SIGTERM: request, signal.SIGINT: request, signal.SIGIO: signal.SIG_IGN}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}  # type: ignore[arg-type]
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
                if self._once and self._is_done():
                    break

    def _is_stopping(self) -> bool:
        return self._stop is not None

    def _receive(self, pause_s: float) -> list[object]:
        """Wait for messages and return all that are there, finished conversions together."""
        messages: list[object] = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._inbox.get(timeout=pause_s))
            while True:
                messages.append(self._inbox.get_nowait())
        finished = [message.outcome for message in messages if isinstance(message, JobDone)]
        if finished:
            self._finish(finished)
        return [message for message in messages if not isinstance(message, JobDone)]

    def _pause_s(self) -> float:
        now = time.monotonic()
        moments = [now + SUPERVISE_S, *self._rescan_at.values(), *(at for at, _ in self._retries.values())]
        moments += [at for at, _ in self._relooks]
        if (look_at := self._settling.next_look()) is not None:
            moments.append(look_at)
        if self._repair_at is not None:
            moments.append(self._repair_at)
        return max(0.0, min(moments) - now)

    def _handle(self, message: object) -> None:
        match message:
            case FileSeen(root, path, is_whole):
                self._look_at(root, path, is_whole=is_whole)
            case FolderSeen(root, path):
                self._look_into(root, path)
                now = time.monotonic()
                self._relooks += [(now + pause_s, message) for pause_s in FOLDER_RELOOK_S]
            case RescanNeeded(root, reason):
                self._rescan(root, reason)
            case LibraryTouched():
                self._repair_at = self._repair_at or time.monotonic() + LIBRARY_REPAIR_DELAY_S
            case StopRequested():
                self._stop = message
            case _:
                raise TypeError(f"no such message: {message!r}")

    def _tick(self, now: float) -> None:
        for path in self._settling.due(now):
            self._examine(path)
        for path, (at, root) in list(self._retries.items()):
            if at <= now:
                del self._retries[path]
                self._retry(path, root)
        relooks, self._relooks = self._relooks, []
        for at, hint in relooks:
            if at <= now:
                self._look_into(hint.root, hint.path)
            else:
                self._relooks.append((at, hint))
        for root, at in list(self._rescan_at.items()):
            if at <= now:
                self._rescan(root, "interval")
        if self._repair_at is not None and self._repair_at <= now:
            self._repair_library()
        self._supervise()
        self._feed()
        self._rest_if_idle(now)

    def _is_done(self) -> bool:
        unfinished = self._settling.unfinished()
        waiting = len(self._settling) - len(unfinished)
        if waiting or self._ready or self._running or self._relooks:
            return False
        for path, reason in unfinished.items():
            signature = look(path)
            size = signature.size_bytes if signature else 0
            events.CHECKPOINT_INCOMPLETE(path=path, size_bytes=size, waited_s=0.0, reason=reason)
        return True

    # --- watching ---------------------------------------------------------------------------------

    def _start_watching(self) -> None:
        self._roots: dict[str, _Root] = {}
        for settings in self._settings.watch:
            path = str(settings.path)
            timing = Timing(settings.settle_s, settings.incomplete_after_s)
            watch = RootWatch(path, settings.observer, settings.poll_interval_s, self._inbox.put)
            names = CheckpointNames(settings.patterns, settings.ignore)
            root = _Root(settings, path, names, watch, timing)
            self._roots[path] = root
            if not self._once:
                self._start_watch(root)
            self._rescan(path, "start")
        models_dir = str(self._settings.models_dir)
        self._library_watch = RootWatch(models_dir, "auto", 5.0, self._inbox.put, is_library=True)
        self._overflow = OverflowListener(self._on_overflow)
        if not self._once:
            self._library_watch.start()
            self._overflow.install()
        if self._once and all(not Path(path).is_dir() for path in self._roots):
            raise NothingToWatchError(f"none of the watched folders is there: {', '.join(self._roots)}")

    def _on_overflow(self) -> None:
        for root in self._roots:
            self._inbox.put(RescanNeeded(root, "event queue overflow"))

    def _start_watch(self, root: _Root) -> None:
        if not root.watch.start():
            if not root.was_missing:
                events.WATCH_MISSING(path=root.path)
            root.was_missing = True
            return
        root.was_missing = False
        state = root.watch.state
        if state.problem and root.settings.observer != "polling":
            hint = "raise fs.inotify.max_user_watches and max_user_instances with sysctl, then it recovers by itself"
            events.WATCH_DEGRADED(path=root.path, reason=state.problem, hint=hint)
        events.WATCH_STARTED(path=root.path, observer=state.observer, reason=state.problem)

    def _supervise(self) -> None:
        if self._once:
            return
        for root in self._roots.values():
            lost = root.watch.why_lost()
            if not lost:
                continue
            if lost != "not started":
                events.WATCH_LOST(path=root.path, reason=lost)
                root.watch.stop()
            self._start_watch(root)
            if root.watch.state.observer:
                self._rescan(root.path, f"watch restarted: {lost}")
        if self._library_watch.why_lost():
            self._library_watch.stop()
            if self._library_watch.start():
                self._inbox.put(LibraryTouched())

    def _stop_watching(self) -> None:
        if not hasattr(self, "_roots"):
            return
        for root in self._roots.values():
            root.watch.stop()
        self._library_watch.stop()
        self._overflow.uninstall()

    def _rescan(self, path: str, reason: str) -> None:
        root = self._roots[path]
        self._rescan_at[path] = time.monotonic() + self._settings.rescan_interval_s
        began = time.monotonic()
        events.RESCAN_STARTED(path=path, reason=reason)
        remembered = self._ledger.of_root(path)
        files = news = 0
        for file, signature in scan_checkpoints(path, path, root.names):
            files += 1
            row = remembered.pop(file, None)
            if (
                row is not None
                and row.signature == signature
                and not isinstance(decide(signature, row, self._template_digest), Convert)
            ):
                continue
            news += self._observe(root, file, signature, is_whole=False)
        if Path(path).is_dir() and remembered:
            self._ledger.forget(remembered)
        events.RESCAN_FINISHED(
            path=path, reason=reason, files=files, news=news, duration_s=round(time.monotonic() - began, 3)
        )

    def _look_into(self, root_path: str, folder: str) -> None:
        root = self._roots.get(root_path)
        if root is not None:
            for file, signature in scan_checkpoints(folder, root_path, root.names):
                if self._is_news(file, signature):
                    self._observe(root, file, signature, is_whole=False)

    def _look_at(self, root_path: str, path: str, *, is_whole: bool) -> None:
        root = self._roots.get(root_path)
        if root is None or not root.names.matches(root_path, path):
            return
        signature = look(path)
        if signature is None:
            if self._settling.forget(path):
                events.CHECKPOINT_VANISHED(path=path)
            return
        if self._is_news(path, signature):
            self._observe(root, path, signature, is_whole=is_whole)

    def _is_news(self, path: str, signature: FileSignature) -> bool:
        if path in self._settling:
            return True
        row = self._ledger.get(path)
        return isinstance(decide(signature, row, self._template_digest), Convert)

    def _observe(self, root: _Root, path: str, signature: FileSignature, *, is_whole: bool) -> bool:
        """Start or go on waiting for a file, unless this very content is being converted; tell if it is new."""
        busy = self._running.get(path)
        if busy is not None and busy.signature == signature:
            return False
        if any(item.path == path and item.signature == signature for item in self._ready) or path in self._retries:
            return False
        is_new = path not in self._settling
        self._settling.observe(path, root.path, signature, root.timing, time.monotonic(), is_whole=is_whole)
        if is_new:
            events.CHECKPOINT_SEEN(path=path, size_bytes=signature.size_bytes, watch=root.path)
            self._pool.warm()
        return is_new

    # --- waiting and deciding ---------------------------------------------------------------------

    def _examine(self, path: str) -> None:
        signature = look(path)
        if signature is None:
            self._settling.forget(path)
            events.CHECKPOINT_VANISHED(path=path)
            return
        try:
            unfinished = why_unfinished(path)
        except OSError:
            unfinished = ""  # the conversion will say what is wrong with it, and try again
        match self._settling.examined(path, signature, unfinished, time.monotonic()):
            case Settled(root=root, waited_s=waited_s):
                events.CHECKPOINT_SETTLED(path=path, size_bytes=signature.size_bytes, waited_s=round(waited_s, 3))
                self._decide(path, root, signature)
            case Incomplete(waited_s=waited_s, reason=reason):
                events.CHECKPOINT_INCOMPLETE(
                    path=path, size_bytes=signature.size_bytes, waited_s=round(waited_s, 3), reason=reason
                )

    def _decide(self, path: str, root: str, signature: FileSignature) -> None:
        match decide(signature, self._ledger.get(path), self._template_digest):
            case Convert(attempt):
                self._ready.append(_Ready(path, root, signature, attempt))

    def _retry(self, path: str, root: str) -> None:
        signature = look(path)
        if signature is None:
            self._ledger.forget([path])
            events.CHECKPOINT_VANISHED(path=path)
        else:
            self._decide(path, root, signature)

    def _feed(self) -> None:
        """Give waiting checkpoints to free workers."""
        while self._ready and len(self._running) < self._settings.workers and self._stop is None:
            item = self._ready.popleft()
            if item.path in self._running:
                self._ready.append(item)
                break
            self._begin(item)

    def _begin(self, item: _Ready) -> None:
        self._job_count += 1
        job = ConversionJob(
            path=item.path,
            signature=item.signature,
            watch_root=item.root,
            models_dir=str(self._settings.models_dir),
            work_dir=str(self._work_dir),
            temporary_name=f"{self._job_count}.tmp",
            metadata=self._settings.metadata,
            attempt=item.attempt,
        )
        self._ledger.put([LedgerRow(item.path, item.root, item.signature, Status.CONVERTING, item.attempt)])
        events.CONVERSION_STARTED(path=item.path, attempt=item.attempt)
        self._running[item.path] = item
        self._pool.submit(job).add_done_callback(self._on_done)

    def _on_done(self, future: Future[Outcome]) -> None:
        self._inbox.put(JobDone(future.result()))

    def _rest_if_idle(self, now: float) -> None:
        if self._running or self._ready or len(self._settling) > len(self._settling.unfinished()):
            self._idle_since = now
        elif now - self._idle_since >= self._settings.conversion.idle_close_s and not self._pool.is_resting:
            self._pool.rest()

    # --- finishing --------------------------------------------------------------------------------

    def _finish(self, outcomes: list[Outcome]) -> None:
        """Publish what was converted, with one write of the index, and remember the rest."""
        converted = [outcome for outcome in outcomes if isinstance(outcome, Converted)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        published: list[Published] = []
        if converted:
            try:
                published = publish(self._library, converted)
            except (OSError, SdaError) as error:
                kind = error.kind if isinstance(error, SdaError) else "cannot_publish"
                failed += [Failed(item.job, kind, False, str(error)) for item in converted]
        rows = [row for item in published if (row := self._published(item)) is not None]
        rows += [row for outcome in failed if (row := self._not_converted(outcome)) is not None]
        self._ledger.put(rows)

    def _published(self, item: Published) -> LedgerRow | None:
        converted, entry = item.converted, item.entry
        running = self._running.pop(converted.job.path)
        path = converted.job.path
        if entry is None:
            self._ready.append(running)
            return None
        names = {"model_id": entry.model_id, "name": entry.name, "file": entry.file_path}
        status = Status.DONE
        if item.action is Action.DUPLICATE:
            events.CHECKPOINT_SKIPPED(path=path, reason="the library has this model already", **names)
            status = Status.DUPLICATE
        else:
            for key, foreign_name in converted.dropped:
                events.CONVERSION_DROPPED_VALUE(path=path, key=key, foreign_name=foreign_name)
            if item.action is Action.ADDED:
                events.LIBRARY_ENTRY_ADDED(**names)
            events.CONVERSION_SUCCEEDED(
                path=path, action=item.action.value, duration_s=round(converted.duration_s, 3), **names
            )
            self._converted += 1
        row = LedgerRow(path, running.root, running.signature, status, running.attempt)
        return replace(row, model_id=entry.model_id, weights_digest=converted.weights_digest)

    def _not_converted(self, failed: Failed) -> LedgerRow | None:
        path = failed.job.path
        running = self._running.pop(path)
        row = LedgerRow(path, running.root, running.signature, Status.FAILED, running.attempt, failed.kind)
        row = replace(row, reason=failed.message, template_digest=self._template_digest)
        if failed.kind == "vanished":
            events.CHECKPOINT_VANISHED(path=path)
            self._ledger.forget([path])
            return None
        if failed.kind == "changed":
            self._inbox.put(FileSeen(running.root, path, False))
            self._ledger.forget([path])
            return None
        if failed.kind == "stopped":
            return replace(row, attempts=running.attempt - 1)
        self._failed += 1
        verdict = after_failure(
            running.attempt,
            permanent=failed.permanent,
            is_crash=failed.is_crash,
            max_attempts=self._settings.conversion.max_attempts,
            spread=random.random(),  # noqa: S311 - jitter
        )
        facts = {"path": path, "kind": failed.kind, "reason": failed.message}
        if isinstance(verdict, RetryIn):
            pause_s = round(verdict.pause_s, 1)
            events.CONVERSION_FAILED(
                **facts, permanent=False, attempt=running.attempt, retry_in_s=None if self._once else pause_s
            )
            if not self._once:
                self._retries[path] = (time.monotonic() + verdict.pause_s, running.root)
            return replace(row, next_try_at=time.time() + verdict.pause_s)
        events.CONVERSION_FAILED(**facts, permanent=failed.permanent, attempt=running.attempt, retry_in_s=None)
        if isinstance(verdict, GiveUp) and verdict.status is Status.GIVEN_UP:
            hint = "it is tried again when the file changes"
            events.CONVERSION_GIVEN_UP(**facts, attempts=running.attempt, hint=hint)
        return replace(row, status=verdict.status)

    def _drain(self) -> None:
        """After a stop was asked for: let running conversions finish, within the grace time."""
        if self._stop is not None:
            events.DAEMON_STOPPING(
                reason=self._stop.reason, running=len(self._running), waiting=len(self._ready) + len(self._settling)
            )
        deadline = time.monotonic() + self._settings.stop_grace_s
        while self._running and time.monotonic() < deadline:
            for message in self._receive(max(0.0, min(0.5, deadline - time.monotonic()))):
                if isinstance(message, StopRequested):
                    deadline = 0.0
        self._pool.close()
        self._receive(0.0)

    # --- the library ------------------------------------------------------------------------------

    def _repair_library(self) -> None:
        """Make the index agree with the folder, unless so much is missing that something else is wrong."""
        self._repair_at = None
        try:
            plan = self._library.plan_repair()
            missing, known = len(plan.of(FindingKind.MISSING)), plan.entries
            if missing >= MASS_LOSS_COUNT and missing > known * MASS_LOSS_SHARE:
                events.LIBRARY_PRUNE_REFUSED(
                    missing=missing,
                    known=known,
                    hint="Is the folder mounted? If the files are really gone, run: sda-daemon models repair",
                )
                return
            if plan.findings:
                self._library.apply_repair(plan)
        except (LibraryError, OSError) as error:
            events.LIBRARY_REPAIR_FAILED(reason=str(error))
            self._repair_at = time.monotonic() + self._settings.rescan_interval_s


@contextlib.contextmanager
def _instance_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this daemon alone."""
    lock = FileLock(folder / INSTANCE_LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise AlreadyRunningError(
            f"another daemon is at work on {folder}", "Stop it first, or use another models_dir and state_dir"
        ) from error
    except OSError as error:
        raise SdaError(f"{folder} cannot be locked: {error.strerror}", "Check its owner and permissions") from error
    try:
        yield
    finally:
        lock.release()


def _make_folder(folder: Path, key: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SdaError(
            f"{key} {folder} cannot be made: {error.strerror}", "Check the path and its permissions"
        ) from error
