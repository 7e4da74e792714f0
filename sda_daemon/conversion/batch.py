"""Converts a list of checkpoints at once, without a daemon: workers side by side, the index written in batches."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from sda_daemon.conversion.digests import FILES_AT_ONCE, NO_CONTENT, read_weights
from sda_daemon.conversion.interrupts import wait_for_first
from sda_daemon.conversion.job import ConversionJob, Converted, Failed, Outcome
from sda_daemon.conversion.pool import ConversionPool, TaskPool
from sda_daemon.conversion.publish import Action, failure_of, publish
from sda_daemon.errors import LibraryError
from sda_daemon.files import is_folder, status_of
from sda_daemon.intake.scan import CheckpointNames, CheckpointScan
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.scan import scan_models
from sda_daemon.library.weights import brings_sliders, find_twin
from sda_daemon.models.formats import format_called
from sda_daemon.models.metadata import file_name_candidates
from sda_daemon.models.playability import Trouble
from sda_daemon.os_errors import explained, is_refusal
from sda_daemon.settings.rules import watch_of
from sda_daemon.settings.schema import WatchSettings
from sda_daemon.signature import FileSignature, signature_at

MOST_LEARNED = 500
"""So many model files are read at most before a batch begins, to know which weights they hold."""
_MAX_TURNS = 3
"""How often a checkpoint is converted again because its model vanished from the library meanwhile."""


class BatchAction(StrEnum):
    """What became of a checkpoint, or would become of it in a dry run."""

    ADDED = "added"
    UPDATED = "updated"
    DUPLICATE = "duplicate"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint to convert, and the folder that its place is relative to (empty for none), watched or named."""

    path: str
    root: str = ""
    is_watched: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one checkpoint.

    Attributes:
        path: the checkpoint.
        action: what became of it.
        entry: the model's entry; in a dry run, as it would be.
        cause: static name of why it failed.
        reason: what happened and what to do.
        duration_s: time that the worker took.
        troubles: what the application that opens the model will not play right.
        ignored_notes: (path, reason) of what lies beside it and could not be used.
    """

    path: str
    action: BatchAction
    entry: ModelEntry | None = None
    cause: str = ""
    reason: str = ""
    duration_s: float = 0.0
    troubles: tuple[Trouble, ...] = ()
    ignored_notes: tuple[tuple[str, str], ...] = ()


def find_sources(
    arguments: Iterable[str], names_at: Callable[[str], CheckpointNames], watches: Sequence[WatchSettings] = ()
) -> tuple[list[Source], list[BatchResult]]:
    """Turn files, folders and globs into checkpoints, each once.

    What does not exist is a failure, and so is what may not be looked at: a file or folder behind a closed folder,
    and each closed folder below one.

    Args:
        arguments: as typed. A file is taken whatever its name, of a folder only what is called like a checkpoint.
        names_at: tells of a folder what checkpoints are called in it.
        watches: watched folders; the place of a checkpoint is relative to the innermost that it lies in.
    """
    found: dict[str, Source] = {}
    failures: list[BatchResult] = []

    def add(path: str, folder: str = "") -> None:
        watch = watch_of(path, watches)
        found.setdefault(path, Source(path, folder if watch is None else str(watch.path), watch is not None))

    def take(match: str, *, is_only: bool) -> None:
        path = os.path.abspath(match)  # noqa: PTH100 - links stay as they are
        if is_folder(Path(path)):
            scan = CheckpointScan(path, path, names_at(path))
            for inner in sorted(inner for inner, _ in scan):
                add(inner, path)
            failures.extend(_closed(folder) for folder in scan.closed)
        elif is_only or names_at(folder := str(Path(path).parent)).matches(folder, path):
            add(path)

    for argument in arguments:
        try:
            is_there = status_of(Path(argument)) is not None
            matches = [argument] if is_there else sorted(glob.glob(argument, recursive=True))
            for match in matches:
                take(match, is_only=len(matches) == 1)
        except OSError as error:
            failures.append(_refused(argument, error))
            continue
        if not matches:
            failures += _nothing_found(argument)
    return list(found.values()), failures


def _nothing_found(argument: str) -> list[BatchResult]:
    """Say why there is nothing: perhaps because a folder that a pattern leads into is closed."""
    if not glob.has_magic(argument):
        return [BatchResult(argument, BatchAction.FAILED, None, "missing", f"there is no file {argument}")]
    closed: list[str] = []
    for inner in (Path(argument), *Path(argument).parents):
        needed = os.X_OK | (os.R_OK if glob.has_magic(inner.name) else 0)
        folders = glob.glob(str(inner.parent), recursive=True)
        closed += [folder for folder in folders if Path(folder).is_dir() and not os.access(folder, needed)]
    if closed:
        return [_closed(folder) for folder in sorted(closed)]
    return [BatchResult(argument, BatchAction.FAILED, None, "missing", f"nothing fits {argument}")]


def _closed(folder: str) -> BatchResult:
    return _refused(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder))


def _refused(path: str, error: OSError) -> BatchResult:
    cause = "permission" if is_refusal(error) else "cannot_read"
    return BatchResult(path, BatchAction.FAILED, None, cause, explained(error))


def convert_batch(
    sources: Sequence[Source],
    library: ModelLibrary,
    pool: ConversionPool,
    make_job: Callable[[Source, FileSignature, str], ConversionJob],
    in_flight: int,
) -> Iterator[BatchResult]:
    """Convert checkpoints and yield what became of each as soon as it is known.

    Args:
        sources: what to convert.
        library: where to.
        pool: what converts.
        make_job: makes the job of a source, of its signature, and of a name for its unfinished file. Jobs without
            such a name are only looked at, and nothing is published.
        in_flight: how many jobs are handed to the pool at the same time.
    """
    waiting = [(source, 1) for source in reversed(sources)]
    running: dict[Future[Outcome], tuple[Source, int]] = {}
    number = 0
    dry_run = _DryRun(library)
    while waiting or running:
        while waiting and len(running) < in_flight:
            source, turn = waiting.pop()
            signature = signature_at(source.path)
            if signature is None:
                yield BatchResult(source.path, BatchAction.FAILED, None, "missing", f"there is no file {source.path}")
                continue
            number += 1
            running[pool.submit(make_job(source, signature, f"{number}.tmp"))] = (source, turn)
        if not running:
            continue
        done = wait_for_first(running)
        finished: list[Converted] = []
        turns: dict[str, tuple[Source, int]] = {}
        for future in done:
            source, turn = running.pop(future)
            outcome = future.result()
            if isinstance(outcome, Failed):
                yield BatchResult(source.path, BatchAction.FAILED, None, outcome.kind, outcome.message)
            else:
                finished.append(outcome)
                turns[source.path] = (source, turn)
        for result in _publish(library, finished, dry_run):
            if result is not None and (result.cause != "again" or turns[result.path][1] >= _MAX_TURNS):
                yield result
            elif result is not None:
                source, turn = turns[result.path]
                waiting.append((source, turn + 1))


def count_unknown(library: ModelLibrary) -> int:
    """Return how many models `learn_weights` would read."""
    return len(_unknown(library))


def learn_weights(library: ModelLibrary, pool: TaskPool, *, save: bool) -> Iterator[str]:
    """Learn which weights the models of a library hold, where that is not known; yield each file that was looked at.

    At most `MOST_LEARNED` files are read in one go, those first whose id this program has not made.

    Args:
        library: the models.
        pool: its workers read them.
        save: whether what is learned is kept for the next time.
    """
    waiting, at_once = _unknown(library), FILES_AT_ONCE
    while waiting:
        future = pool.call(read_weights, str(library.models_dir), waiting[:at_once])
        wait_for_first([future])
        try:
            found = future.result()
        except Exception:  # noqa: BLE001 - a file that its reader dies of is not known, and costs no one anything
            if at_once > 1:
                at_once = 1
                continue
            found = []
        library.weights.learn_all(item for item in found if item.signature != NO_CONTENT)
        count = max(1, len(found))
        yield from waiting[:count]
        del waiting[:count]
    if save:
        library.weights.save()


def _unknown(library: ModelLibrary) -> list[str]:
    return library.weights.unknown(scan_models(library.models_dir), library.entries())[:MOST_LEARNED]


def _publish(library: ModelLibrary, finished: Sequence[Converted], dry_run: _DryRun) -> Iterator[BatchResult]:
    yield from (dry_run.would_become(item) for item in finished if not item.job.temporary_name)
    made = [item for item in finished if item.job.temporary_name]
    if not made:
        return
    try:
        published = publish(library, made)
    except LibraryError as error:
        yield from (BatchResult(item.job.path, BatchAction.FAILED, None, error.kind, str(error)) for item in made)
        return
    except OSError as error:
        cause = "permission" if is_refusal(error) else "cannot_write"
        reason = explained(error, f"{error.strerror or error} ({library.models_dir})")
        yield from (BatchResult(item.job.path, BatchAction.FAILED, None, cause, reason) for item in made)
        return
    for done in published:
        item = done.converted
        if done.action is Action.FAILED:
            failed = failure_of(done)
            yield BatchResult(item.job.path, BatchAction.FAILED, None, failed.kind, failed.message)
        elif done.action is Action.AGAIN or done.entry is None:
            reason = "its model keeps vanishing from the library"
            yield BatchResult(item.job.path, BatchAction.FAILED, None, "again", reason)
        else:
            action = BatchAction(done.action.value)
            found = item.troubles if action is not BatchAction.DUPLICATE else ()
            yield BatchResult(item.job.path, action, done.entry, "", "", item.duration_s, found, item.ignored_notes)


class _DryRun:
    """Tells what checkpoints would become; each name is given once."""

    def __init__(self, library: ModelLibrary) -> None:
        self._library = library
        self._taken: set[str] | None = None

    def would_become(self, item: Converted) -> BatchResult:
        """Return what a conversion would give."""
        known = self._library.get(item.metadata.model_id) or find_twin(self._library, item.weights_digest)
        if known is None:
            ending = format_called(item.format_name).ending
            names = file_name_candidates(item.plain_name or item.metadata.name, ending, item.metadata.model_id)
            name = next(name for name in names if name not in self._names())
            self._names().add(name)
            entry = ModelEntry.from_metadata(item.metadata, name, 0)
            path, action, found = item.job.path, BatchAction.ADDED, item.troubles
            return BatchResult(path, action, entry, "", "", item.duration_s, found, item.ignored_notes)
        action = BatchAction.UPDATED if brings_sliders(item.metadata, known) else BatchAction.DUPLICATE
        return BatchResult(
            item.job.path, action, replace(known), duration_s=item.duration_s, ignored_notes=item.ignored_notes
        )

    def _names(self) -> set[str]:
        """The names that are taken, whatever by."""
        if self._taken is None:
            self._taken = {entry.file_path for entry in self._library.list_all()}
            with contextlib.suppress(OSError):
                self._taken.update(os.listdir(self._library.models_dir))
        return self._taken
