"""Which checkpoint is converted when: what waits, what runs, and what has ended."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice

from sda_daemon import events
from sda_daemon.conversion.job import ConversionJob, JobDone, Outcome, WorkerFree
from sda_daemon.conversion.pool import ConversionPool
from sda_daemon.conversion.work import RunContext, RunningWork, Work
from sda_daemon.intake.settling import Settled
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.signature import FileSignature, signature_at
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.policy import Convert, LedgerRow, Status, decide, pause_after_interruptions
from sda_daemon.watching.hints import FileSeen

GATHER_S = 0.1
"""While others are running, the end of a conversion waits so long for more, to share one write of the index."""
FINISHING = 10
"""Conversions that may be on their way to disk and index beside those that workers are busy with: a slow disk must not
be buried under finished files."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a look at the queue has brought up.

    Attributes:
        ended: conversions that have ended, to be published together.
        hints: files that are to be looked at again, because they have changed meanwhile.
    """

    ended: tuple[RunningWork, ...] = ()
    hints: tuple[FileSeen, ...] = ()


class ConversionQueue:
    """Everything between settling and publishing. A checkpoint is in one of two places: waiting, or running.

    Args:
        context: what new conversions begin with; see `configure`.
        ledger: remembers what was tried.
        enqueue: takes the news of workers; called from other threads.
        now: monotonic seconds.
        retries: whether failures that may pass are tried again.
    """

    def __init__(
        self,
        context: RunContext,
        ledger: Ledger,
        enqueue: Callable[[WorkerFree | JobDone], None],
        now: float,
        *,
        retries: bool,
    ) -> None:
        self._waiting: dict[str, Work] = {}
        self._running: dict[str, RunningWork] = {}
        self._paused: set[str] = set()  # of those that wait, the ones that wait for a moment
        self._due_at = float("inf")  # when the first of these is to be looked at
        self._context = context
        self._ledger = ledger
        self._enqueue = enqueue
        self._with_retries = retries
        self._finish_at = 0.0
        self._retired: list[ConversionPool] = []
        self._count = 0
        self._is_cut = False
        self._busy_at = now

    def configure(self, context: RunContext, is_wanted: Callable[[str, str], bool]) -> None:
        """Let new conversions begin with something else; those that run keep what they began with.

        Args:
            context: the config and what follows from it.
            is_wanted: tells of a root and a path in it whether the config still wants it converted.
        """
        if context.pool is not self._context.pool:
            self._retired.append(self._context.pool)
        self._context = context
        for work in [work for work in self._waiting.values() if not is_wanted(work.root, work.path)]:
            self._drop(work.path)

    # --- questions --------------------------------------------------------------------------------

    @property
    def running(self) -> Mapping[str, RunningWork]:
        """What is being converted, or on its way to the disk, by path; not to be changed."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many wait for a worker, and not for a moment at which they are tried again."""
        return len(self._waiting) - len(self._paused)

    def first_waiting(self, count: int) -> list[str]:
        """Return the first paths that wait for a worker."""
        paths = (path for path in self._waiting if path not in self._paused) if self.waiting else ()
        return list(islice(paths, count))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is running or waiting for a worker."""
        return not self._running and not self.waiting

    def is_taken(self, path: str, signature: FileSignature) -> bool:
        """Tell whether this content of a path is being converted, or waits for it, or for another try."""
        running, waiting = self._running.get(path), self._waiting.get(path)
        return (running is not None and running.work.signature == signature) or (
            waiting is not None and waiting.signature == signature
        )

    def uses(self, library: ModelLibrary) -> bool:
        """Tell whether models go into a library, or will when a running conversion ends."""
        return any(item.library is library for item in (self._context, *self._contexts()))

    def _contexts(self) -> list[RunContext]:
        return [item.context for item in self._running.values()]

    def next_moment(self) -> float | None:
        """Return when `poll` has something to do, in monotonic seconds."""
        moments = [self._due_at] if self._paused else []
        if any(item.outcome is not None for item in self._running.values()):
            moments.append(self._finish_at)
        if self.is_idle:
            moments.append(self._busy_at + self._context.config.settings.conversion.idle_close_s)
        return min(moments, default=None)

    # --- what comes in ----------------------------------------------------------------------------

    def add(self, settled: Iterable[Settled], now: float) -> None:
        """Let settled checkpoints wait for a worker, if there is anything to do with them."""
        for item in settled:
            running = self._running.get(item.path)
            if running is not None and running.work.signature == item.signature:
                continue
            row = self._ledger.get(item.path)
            verdict = decide(item.signature, row, self._context.config.template_digest)
            self._drop(item.path)
            if isinstance(verdict, Convert):
                pause_s = pause_after_interruptions(row) if self._with_retries else 0.0
                self._wait(
                    Work(item.path, item.root, item.signature, verdict.attempt, now + pause_s if pause_s else 0.0)
                )

    def put_back(self, works: Iterable[Work]) -> None:
        """Let checkpoints wait that are to be converted once more, unless a newer content of theirs waits already."""
        for work in works:
            if work.path not in self._waiting:
                self._wait(work)

    def _wait(self, work: Work) -> None:
        self._waiting[work.path] = work
        if work.not_before:
            self._paused.add(work.path)
            self._due_at = min(self._due_at, work.not_before)

    def _drop(self, path: str) -> None:
        self._waiting.pop(path, None)
        self._paused.discard(path)

    def retry_now(self) -> None:
        """Forget the pauses: what waits for another try is looked at by the next rescan."""
        for path in list(self._paused):
            self._drop(path)

    def take(self, message: WorkerFree | JobDone, now: float) -> None:
        """Take note of what a worker has told; `poll` acts on it."""
        match message:
            case WorkerFree(job):
                if job.path in self._running:
                    self._running[job.path] = replace(self._running[job.path], is_free=True)
            case JobDone(outcome):
                if not any(item.outcome for item in self._running.values()):
                    self._finish_at = now + GATHER_S
                item = self._running.get(outcome.job.path)
                if item is not None:
                    self._running[outcome.job.path] = replace(item, is_free=True, outcome=outcome)

    # --- a turn -----------------------------------------------------------------------------------

    def poll(self, now: float, *, expecting: bool = False, hold: bool = False) -> Turn:
        """Begin what can begin, and return what has ended: at once, or together with what else comes soon.

        Workers that have become free get new work before, because publishing waits for the disk.

        Args:
            now: monotonic seconds.
            expecting: whether checkpoints are about to settle.
            hold: whether nothing new must begin; then nothing is waited for either.
        """
        hints = self._look_at_due(now)
        if expecting and not self._is_cut:
            self._context.pool.warm()
        if not hold:
            self._begin_waiting(now)
        if expecting or not self.is_idle:
            self._busy_at = now
        elif now >= self._busy_at + self._context.config.settings.conversion.idle_close_s:
            self._context.pool.release()
            self._busy_at = float("inf")
        return Turn(self._ended(now, hold=hold), tuple(hints))

    def _look_at_due(self, now: float) -> list[FileSeen]:
        """Look at what waits for another try, and whose time has come."""
        hints: list[FileSeen] = []
        if now < self._due_at:
            return hints
        due = [work for path in self._paused if (work := self._waiting[path]).not_before <= now]
        for work in sorted(due, key=lambda work: work.not_before):
            path = work.path
            self._drop(path)
            signature = signature_at(path)
            if signature is None:
                self._ledger.forget([path])
                events.CHECKPOINT_VANISHED(path=path)
            elif signature == work.signature:
                verdict = decide(signature, self._ledger.get(path), self._context.config.template_digest)
                attempt = verdict.attempt if isinstance(verdict, Convert) else work.attempt
                self._wait(replace(work, attempt=attempt, not_before=0.0))
            else:
                hints.append(FileSeen(work.root, path, False))
        self._due_at = min((self._waiting[path].not_before for path in self._paused), default=float("inf"))
        return hints

    def _begin_waiting(self, now: float) -> None:
        """Begin as many conversions as there are workers for them."""
        if not self.waiting:
            return
        workers = self._context.config.settings.workers
        room = min(
            workers - sum(not item.is_free for item in self._running.values()),
            workers + FINISHING - len(self._running),
        )
        ready = (work for path, work in self._waiting.items() if path not in self._paused and path not in self._running)
        for work in list(islice(ready, max(0, room))):
            self._drop(work.path)
            self._begin(work, now)

    def _begin(self, work: Work, now: float) -> None:
        self._count += 1
        context, settings = self._context, self._context.config.settings
        before = self._ledger.get(work.path)
        model_id = before.model_id if before is not None else ""
        watch = context.config.watch_for(work.root, work.path)
        replaces = watch is not None and watch.on_overwrite == "replace"
        job = ConversionJob(
            path=work.path,
            signature=work.signature,
            watch_root=work.root,
            models_dir=str(context.library.models_dir),
            work_dir=str(context.work_dir),
            temporary_name=f"{self._count}.tmp",
            metadata=settings.metadata,
            rules=settings.rules,
            by_daemon=True,
            instead_of=model_id if replaces else "",
            models_format=settings.models_format,
        )
        # The model that this path made before is remembered: it may have to give way.
        row = LedgerRow(work.path, work.root, work.signature, Status.CONVERTING, work.attempt, model_id=model_id)
        self._ledger.put([row])
        events.CONVERSION_STARTED(path=work.path, attempt=work.attempt)
        self._running[work.path] = RunningWork(work, context, job)
        self._busy_at = now
        context.pool.submit(job, lambda: self._enqueue(WorkerFree(job))).add_done_callback(self._tell_loop)

    def _tell_loop(self, future: Future[Outcome]) -> None:
        self._enqueue(JobDone(future.result()))

    def _ended(self, now: float, *, hold: bool) -> tuple[RunningWork, ...]:
        ended = tuple(item for item in self._running.values() if item.outcome is not None)
        if not ended or not (hold or now >= self._finish_at or len(ended) >= len(self._running)):
            return ()
        for item in ended:
            del self._running[item.work.path]
        return ended

    # --- the end ----------------------------------------------------------------------------------

    def close_retired(self) -> None:
        """End the workers of earlier configs that have nothing more to do."""
        busy = [pool for pool in self._retired if any(item.pool is pool for item in self._contexts())]
        for pool in self._retired:
            if pool not in busy:
                pool.close()
        self._retired = busy

    def cut_off(self) -> None:
        """End the workers; what they were at costs no attempt and is done at the next start."""
        if not self._is_cut:
            self._is_cut = True
            for pool in (self._context.pool, *self._retired):
                pool.close()
            with contextlib.suppress(sqlite3.Error):  # at worst the attempts count
                self._ledger.take_back(self._running)

    @property
    def is_cut(self) -> bool:
        """Whether the workers have been ended: what fails from now on has not failed."""
        return self._is_cut
