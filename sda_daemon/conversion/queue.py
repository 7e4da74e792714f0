"""From settled checkpoints to models in the library: the queue, the workers, the publishing, the retries."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from sda_daemon import events
from sda_daemon.conversion.clearing import Clearing, SourceCleared, SourcePutBack, SourceStayed
from sda_daemon.conversion.job import ConversionJob, Converted, Failed, JobDone, Outcome, WorkerFree
from sda_daemon.conversion.pool import ConversionPool
from sda_daemon.conversion.publish import Action, Published, failure_of, publish
from sda_daemon.conversion.retention import Retention
from sda_daemon.errors import FinishedModelError, SdaError
from sda_daemon.intake.settling import Settled
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.in_use import InUse
from sda_daemon.service.sandbox import tell
from sda_daemon.settings.rules import template_digest, watch_settings_for
from sda_daemon.settings.schema import Settings, WatchSettings
from sda_daemon.signature import FileSignature, signature_at
from sda_daemon.state.ledger import SLIDERS_KIND, Ledger
from sda_daemon.state.policy import (
    Convert,
    GiveUp,
    LedgerRow,
    RetryIn,
    Status,
    after_failure,
    decide,
    pause_after_interruptions,
)
from sda_daemon.watching.hints import FileSeen
from sda_daemon.wording import LONGEST_QUOTE, clean

GATHER_S = 0.1
"""While others are running, the end of a conversion waits so long for more, to share one write of the index."""
FINISHING = 10
"""Conversions that may be on their way to disk and index beside those that workers are busy with: a slow disk must not
be buried under finished files."""
_NO_SIGNATURE = FileSignature(-1, -1, -1)


@dataclass(frozen=True, slots=True)
class Task:
    """A checkpoint that is or will be converted."""

    path: str
    root: str
    signature: FileSignature
    attempt: int


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a conversion begins with, and ends with whatever happens to the config meanwhile.

    Attributes:
        settings: the config.
        library: where models go.
        pool: runs conversions.
        work_dir: folder for unfinished files, in the file system of the library.
    """

    settings: Settings
    library: ModelLibrary
    pool: ConversionPool
    work_dir: Path

    def watch_of(self, task: Task) -> WatchSettings | None:
        """Return the settings of a checkpoint's watched folder, with what rules change for this file."""
        watch = next((watch for watch in self.settings.watch if str(watch.path) == task.root), None)
        relpath = task.path[len(task.root) :].lstrip("/")
        return watch and watch_settings_for(watch, self.settings.rules, relpath)


class ConversionQueue:
    """Everything between settling and the library.

    Args:
        now: the config in force and what follows from it; see `configure`.
        ledger: remembers what was tried.
        enqueue: takes messages for the loop; called from other threads.
        retries: whether failures that may pass are tried again.
    """

    def __init__(
        self,
        now: Circumstances,
        ledger: Ledger,
        enqueue: Callable[[object], None],
        *,
        retries: bool,
    ) -> None:
        self.succeeded = 0
        self.failed = 0
        self.last: tuple[str, float] | None = None  # name of the newest model, and when it came (monotonic)
        self.ready: dict[str, Task] = {}
        self.running: dict[str, Task] = {}
        self._begun: dict[str, Circumstances] = {}
        self._jobs: dict[str, ConversionJob] = {}
        self._freed: set[str] = set()  # of those that run, the ones whose worker is done
        self._outcomes: list[Outcome] = []
        self._finish_at = 0.0
        self._retired: list[ConversionPool] = []
        self._now = now
        self._ledger = ledger
        self._enqueue = enqueue
        self._with_retries = retries
        self._retries: dict[str, tuple[float, Task]] = {}
        self._count = 0
        self._is_cut = False
        self.clearing = Clearing(enqueue, retries=retries)
        self._retention = Retention(ledger, self.clearing)
        self._busy_at = time.monotonic()
        self.configure(now)

    def configure(self, now: Circumstances, is_wanted: Callable[[str, str], bool] = lambda _root, _path: True) -> None:
        """Use another config from now on; running conversions keep theirs.

        Args:
            now: the config and what follows from it.
            is_wanted: tells of a root and a path in it whether the config still wants it converted.
        """
        if now.pool is not self._now.pool:
            self._retired.append(self._now.pool)
        self._now = now
        self._settings = now.settings
        self._in_use = InUse(now.settings.application.presets, now.settings.application.history)
        self.clearing.drop()
        self._retention.release_unwanted(self._clears)
        self.template_digest = template_digest(now.settings.metadata, now.settings.rules)
        self.ready = {path: task for path, task in self.ready.items() if is_wanted(task.root, path)}
        self._retries = {path: item for path, item in self._retries.items() if is_wanted(item[1].root, path)}
        self._close_retired()

    def warm(self) -> None:
        """Get workers ready, because a checkpoint is to be expected."""
        self._now.pool.warm()

    @property
    def pool(self) -> ConversionPool:
        """What runs new conversions."""
        return self._now.pool

    def uses(self, library: ModelLibrary) -> bool:
        """Tell whether models go into a library, or will when a running conversion ends."""
        return any(item.library is library for item in (self._now, *self._begun.values()))

    def _close_retired(self) -> None:
        """End the workers of earlier configs that have nothing more to do."""
        busy = [pool for pool in self._retired if any(item.pool is pool for item in self._begun.values())]
        for pool in self._retired:
            if pool not in busy:
                pool.close()
        self._retired = busy

    # --- the queue --------------------------------------------------------------------------------

    def is_taken(self, path: str, signature: FileSignature) -> bool:
        """Tell whether this content of a path is being converted, or waits for it, or for another try."""
        running = self.running.get(path)
        if running is not None and running.signature == signature:
            return True
        retry = self._retries.get(path)
        if retry is not None and retry[1].signature == signature:
            return True
        ready = self.ready.get(path)
        return ready is not None and ready.signature == signature

    def take(self, settled: Settled) -> None:
        """Put a settled checkpoint into the queue, if there is anything to do with it."""
        self._retries.pop(settled.path, None)
        self._consider(settled.path, settled.root, settled.signature)

    def _consider(self, path: str, root: str, signature: FileSignature) -> None:
        row = self._ledger.get(path)
        verdict = decide(signature, row, self.template_digest)
        if not isinstance(verdict, Convert):
            return
        task = Task(path, root, signature, verdict.attempt)
        pause_s = pause_after_interruptions(row)
        if pause_s and self._with_retries:
            self._retries[path] = (time.monotonic() + pause_s, task)
        else:
            self.ready[path] = task

    @property
    def is_idle(self) -> bool:
        """Whether nothing is running or waiting for a worker."""
        return not self.ready and not self.running

    def next_moment(self) -> float | None:
        """Return when `tick` has something to do, in monotonic seconds."""
        moments = [at for at, _ in self._retries.values()]
        if self._outcomes:
            moments.append(self._finish_at)
        if self.is_idle:
            moments.append(self._busy_at + self._settings.conversion.idle_close_s)
        return min(moments, default=None)

    def retry_now(self) -> None:
        """Forget the pauses: what waits for another try is looked at by the next rescan."""
        self._retries.clear()

    def tick(self, now: float, *, expecting: bool, hold: bool = False) -> None:
        """Start what can be started; let the workers go after a while without work.

        Args:
            now: monotonic seconds.
            expecting: whether checkpoints are about to settle.
            hold: whether nothing must be started, because there is no place for the result.
        """
        for path, (at, task) in list(self._retries.items()):
            if at <= now:
                del self._retries[path]
                self._try_again(task)
        if not hold:
            self._begin_ready()
        if not self.is_idle or expecting:
            self._busy_at = now
        elif now >= self._busy_at + self._settings.conversion.idle_close_s:
            self.pool.rest()
            self._busy_at = float("inf")

    def _begin_ready(self) -> None:
        """Start as many conversions as there are workers for them."""
        workers = self._settings.workers
        while self.ready and len(self.running) - len(self._freed) < workers and len(self.running) < workers + FINISHING:
            path = next((path for path in self.ready if path not in self.running), None)
            if path is None:
                break
            self._begin(self.ready.pop(path))

    def _try_again(self, task: Task) -> None:
        signature = signature_at(task.path)
        if signature is None:
            self._ledger.forget([task.path])
            events.CHECKPOINT_VANISHED(path=task.path)
        elif signature == task.signature:
            self.ready[task.path] = replace(task, attempt=self._next_attempt(task))
        else:
            self._enqueue(FileSeen(task.root, task.path, False))

    def _next_attempt(self, task: Task) -> int:
        verdict = decide(task.signature, self._ledger.get(task.path), self.template_digest)
        return verdict.attempt if isinstance(verdict, Convert) else task.attempt

    def _begin(self, task: Task) -> None:
        self._count += 1
        before = self._ledger.get(task.path)
        watch = self._now.watch_of(task)
        replaces = before is not None and watch is not None and watch.on_overwrite == "replace"
        job = ConversionJob(
            path=task.path,
            signature=task.signature,
            watch_root=task.root,
            models_dir=str(self._now.library.models_dir),
            work_dir=str(self._now.work_dir),
            temporary_name=f"{self._count}.tmp",
            metadata=self._settings.metadata,
            rules=self._settings.rules,
            by_daemon=True,
            instead_of=before.model_id if before is not None and replaces else "",
            models_format=self._settings.models_format,
        )
        row = LedgerRow(task.path, task.root, task.signature, Status.CONVERTING, task.attempt)
        # The model that this path made before is remembered: it may have to give way.
        self._ledger.put([replace(row, model_id=before.model_id if before else "")])
        events.CONVERSION_STARTED(path=task.path, attempt=task.attempt)
        self.running[task.path] = task
        self._begun[task.path] = self._now
        self._jobs[task.path] = job
        self._busy_at = time.monotonic()
        self.pool.submit(job, lambda: self._enqueue(WorkerFree(job))).add_done_callback(self._on_done)

    def _on_done(self, future: Future[Outcome]) -> None:
        self._enqueue(JobDone(future.result()))

    def cut_off(self) -> None:
        """End the workers; what they were at costs no attempt and is done at the next start."""
        if not self._is_cut:
            self._is_cut = True
            self.clearing.stop()
            for pool in (self._now.pool, *self._retired):
                pool.close()
            with contextlib.suppress(sqlite3.Error):  # at worst the attempts count
                self._ledger.take_back(self.running)

    # --- finishing --------------------------------------------------------------------------------

    def _is_mine(self, job: ConversionJob) -> bool:
        """Whether a job is one of those that run: news of an earlier life may come late."""
        mine = self._jobs.get(job.path)
        return mine is not None and (mine.work_dir, mine.temporary_name) == (job.work_dir, job.temporary_name)

    def worker_free(self, job: ConversionJob) -> None:
        """Take note that a worker is done with a job and could take another one."""
        if self._is_mine(job):
            self._freed.add(job.path)

    def take_outcomes(self, outcomes: list[Outcome], now: float, *, hold: bool) -> None:
        """Take what the workers told, and finish it: at once, or together with what else comes soon.

        The workers that have become free get new work before, because finishing waits for the disk.

        Args:
            outcomes: what the workers told; may be empty.
            now: monotonic seconds.
            hold: whether nothing new must be started; then nothing is waited for either.
        """
        outcomes = [outcome for outcome in outcomes if self._is_mine(outcome.job)]
        if outcomes and not self._outcomes:
            self._finish_at = now + GATHER_S
        self._outcomes += outcomes
        self._freed.update(outcome.job.path for outcome in outcomes)
        if not hold:
            self._begin_ready()
        if not self._outcomes:
            return
        if hold or now >= self._finish_at or len(self._outcomes) >= len(self.running):
            finished, self._outcomes = self._outcomes, []
            self._finish(finished)

    def _finish(self, outcomes: list[Outcome]) -> None:
        """Publish what was converted, with one write of the index, and remember the rest.

        The order of durable steps is file, index, ledger, and only then the checkpoints themselves.
        """
        libraries = {id(begun.library): begun.library for item in outcomes if (begun := self._begun[item.job.path])}
        for library in libraries.values():
            self._finish_in(library, [item for item in outcomes if self._begun[item.job.path].library is library])
        for item in outcomes:
            del self._begun[item.job.path], self._jobs[item.job.path]
            self._freed.discard(item.job.path)
        self._close_retired()

    def _finish_in(self, library: ModelLibrary, outcomes: list[Outcome]) -> None:
        converted = [outcome for outcome in outcomes if isinstance(outcome, Converted)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed) and not self._is_cut]
        published: list[Published] = []
        if converted:
            try:
                published = publish(library, converted, self._replacements(converted))
            except (OSError, SdaError) as error:
                kind = error.kind if isinstance(error, SdaError) else "cannot_publish"
                failed += [Failed(item.job, kind, False, tell(error)) for item in converted]
        failed += [failure_of(item) for item in published if item.action is Action.FAILED]
        published = [item for item in published if item.action is not Action.FAILED]
        tasks = [self.running[item.converted.job.path] for item in published if item.entry is not None]
        rows = [row for item in published if (row := self._published(item)) is not None]
        rows += [row for outcome in failed if (row := self._not_converted(outcome)) is not None]
        self._retention.remember(library, published)
        self._ledger.put(rows)
        watches = {task.path: watch for task in tasks if (watch := self._watch_of(task)) is not None}
        self._prune(library, {str(Path(path).parent): watch for path, watch in watches.items()})
        for task in tasks:
            if task.path in watches:
                self._retention.clear_source(library, task.path, task.root, task.signature, watches[task.path])

    def _prune(self, library: ModelLibrary, folders: Mapping[str, WatchSettings]) -> None:
        try:
            self._retention.prune(library, folders, self._in_use)
        except (SdaError, OSError) as error:  # it is done by the next conversion of the folder, or at the next start
            events.LIBRARY_REPAIR_FAILED(reason=tell(error))

    def _clears(self, path: str, root: str) -> bool:
        """Tell whether a checkpoint is to be deleted or moved once it is converted."""
        watch = self._now.watch_of(Task(path, root, _NO_SIGNATURE, 1))
        return watch is not None and watch.after != "keep"

    def catch_up(self) -> None:
        """Prune what a killed daemon did not come to prune."""
        watches = {str(watch.path): watch for watch in self._settings.watch}
        try:
            self._retention.prune_all(self._now.library, watches, self._in_use)
        except (SdaError, OSError) as error:
            events.LIBRARY_REPAIR_FAILED(reason=tell(error))

    def clear_done(self, path: str, root: str, signature: FileSignature) -> None:
        """Delete or move a checkpoint that was converted before, where that was wanted and did not come about."""
        watch = self._now.watch_of(Task(path, root, signature, 1))
        if watch is not None:
            self._retention.clear_source(self._now.library, path, root, signature, watch)

    def source_said(self, message: SourceCleared | SourceStayed | SourcePutBack) -> None:
        """Take note of what became of a checkpoint that was to be deleted or moved."""
        self.clearing.done(message)
        match message:
            case SourceCleared():
                self._retention.cleared(message)
            case SourceStayed():
                self._retention.stayed(message)
                if message.back_as:
                    self._enqueue(FileSeen(message.root, message.back_as, False))
            case SourcePutBack(_, root, path):
                self._retention.put_back(message)
                signature = signature_at(path) if path else None
                if signature is not None:
                    self._enqueue(FileSeen(root, path, False))
                    self.clear_done(path, root, signature)

    def put_back(self, private: str, root: str) -> None:
        """Have a file looked at that a crash may have left under a private name."""
        self.clearing.put_back(private, root, self._move_to(root))

    def _move_to(self, root: str) -> Path | None:
        return next((watch.move_to for watch in self._settings.watch if str(watch.path) == root), None)

    def _watch_of(self, task: Task) -> WatchSettings | None:
        return self._begun[task.path].watch_of(task)

    def _replacements(self, converted: list[Converted]) -> dict[str, str]:
        """Paths whose earlier model is to be replaced: made of this path, of no other that is there, not in use."""
        found: dict[str, str] = {}
        wanted = {item.metadata.model_id for item in converted}  # what others of these have just been found to be
        for item in converted:
            path = item.job.path
            watch = self._watch_of(self.running[path])
            row = self._ledger.get(path)
            if watch is None or watch.on_overwrite != "replace" or row is None or not row.model_id:
                continue
            others = [
                other for other, _ in self._ledger.paths_of_model(row.model_id) if other != path and signature_at(other)
            ]
            made = self._ledger.made_model(row.model_id)
            is_of_path = made is not None and made.source_path == path
            library = self._begun[path].library
            library.refresh()  # what people have done meanwhile counts
            old = library.get(row.model_id)
            in_use = old is not None and self._in_use.why(library, old)
            if is_of_path and row.model_id not in wanted and not others and not in_use:
                found[path] = row.model_id
        return found

    def _published(self, item: Published) -> LedgerRow | None:
        converted, entry = item.converted, item.entry
        path = converted.job.path
        task = self.running.pop(path)
        for notes, reason in converted.ignored_notes:
            events.NOTES_IGNORED(path=notes, checkpoint=path, reason=reason)
        if entry is None:
            self.ready[path] = task
            return None
        names = {"model_id": entry.model_id, "name": entry.name, "file": entry.file_path}
        status = Status.DONE
        if item.action is Action.DUPLICATE:
            is_twin = entry.model_id != converted.metadata.model_id
            reason = "the library has this model already"
            if is_twin:
                reason = "another program has saved the same weights in the library"
            events.CHECKPOINT_SKIPPED(path=path, reason=reason, **names)
            if converted.no_sliders and not entry.has_analysis:
                events.MODEL_WITHOUT_SLIDERS(**names, reason=converted.no_sliders)
            status = Status.DUPLICATE
        else:
            for key, foreign_name in converted.dropped:
                events.CONVERSION_DROPPED_VALUE(path=path, key=key, foreign_name=foreign_name)
            if item.action is Action.ADDED:
                events.LIBRARY_ENTRY_ADDED(**names)
            events.CONVERSION_SUCCEEDED(
                path=path, action=item.action.value, duration_s=round(converted.duration_s, 3), **names
            )
            for trouble in converted.troubles:
                events.CONVERSION_NOT_PLAYABLE(
                    path=path,
                    model_id=entry.model_id,
                    file=entry.file_path,
                    format=converted.format_name,
                    reason=trouble.reason,
                    hint=trouble.hint,
                )
            self.succeeded += 1
            self.last = (clean(entry.name or entry.file_path, LONGEST_QUOTE), time.monotonic())
        kind = SLIDERS_KIND if converted.metadata.has_analysis else ""
        row = LedgerRow(path, task.root, task.signature, status, task.attempt, kind)
        return replace(row, model_id=entry.model_id, weights_digest=converted.weights_digest)

    def _not_converted(self, failed: Failed) -> LedgerRow | None:
        path = failed.job.path
        task = self.running.pop(path)
        row = LedgerRow(path, task.root, task.signature, Status.FAILED, task.attempt, failed.kind, failed.message)
        before = self._ledger.get(path)
        digest = template_digest(failed.job.metadata, failed.job.rules)
        row = replace(row, template_digest=digest, model_id=before.model_id if before else "")
        if failed.kind == "vanished":
            events.CHECKPOINT_VANISHED(path=path)
            self._ledger.forget([path])
            return None
        if failed.kind == "changed":
            self._enqueue(FileSeen(task.root, path, False))
            return row
        if digest != self.template_digest and failed.kind in ("skipped", "template"):
            self._enqueue(FileSeen(task.root, path, False))  # the config has changed meanwhile: it is looked at again
        if failed.kind in ("skipped", FinishedModelError.kind):
            events.CHECKPOINT_SKIPPED(path=path, reason=failed.message)
            return replace(row, status=Status.SKIPPED)
        self.failed += 1
        verdict = after_failure(
            task.attempt,
            permanent=failed.permanent,
            is_crash=failed.is_crash,
            max_attempts=self._begun[path].settings.conversion.max_attempts,
            spread=random.random(),  # noqa: S311 - jitter
        )
        facts = {"path": path, "kind": failed.kind, "reason": failed.message}
        pause_s = verdict.pause_s if isinstance(verdict, RetryIn) and self._with_retries else None
        events.CONVERSION_FAILED(
            **facts,
            permanent=failed.permanent,
            attempt=task.attempt,
            retry_in_s=None if pause_s is None else round(pause_s, 1),
        )
        if isinstance(verdict, GiveUp):
            if verdict.status is Status.GIVEN_UP:
                hint = "it is tried again when the file changes"
                events.CONVERSION_GIVEN_UP(**facts, attempts=task.attempt, hint=hint)
            return replace(row, status=verdict.status)
        if pause_s is not None and any(str(watch.path) == task.root for watch in self._settings.watch):
            self._retries[path] = (time.monotonic() + pause_s, task)
        return replace(row, next_try_at=time.time() + verdict.pause_s)
