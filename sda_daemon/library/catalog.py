"""The library: all models of a folder, their index, and every change to it.

Many processes may use one folder. Each change is read-modify-write under a file lock: if another
program has changed the index since it was last read, it is read again first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sda_daemon import events
from sda_daemon.errors import LibraryBusyError, LibraryError
from sda_daemon.files import sweep_temporary
from sda_daemon.library import repair
from sda_daemon.library.entry import ModelEntry, is_bare_model_name, matches, sort_entries
from sda_daemon.library.index import (
    INDEX_FILE_NAME,
    IndexContent,
    IndexSignature,
    encode_entry,
    encode_index,
    index_signature,
    load_index,
    parse_index,
    write_index,
    write_index_data,
)
from sda_daemon.library.repair import Finding, FindingKind, RepairPlan
from sda_daemon.library.scan import Known, load_known, save_known, scan_models
from sda_daemon.signature import FileSignature

LOCK_FILE_NAME = ".model_library.lock"
LOCK_TIMEOUT_S = 30.0


class ModelLibrary:
    """The models of one folder.

    Reading answers from memory, as of the last `refresh()` or change; every change reads what others
    have written first. Safe to use from several threads.

    Args:
        models_dir: the folder; it is made if it is not there.
        lock_timeout_s: how long a change waits for other processes, in seconds.

    Raises:
        NewerIndexError: the index was written by a later version.
        LibraryError: the folder or the index cannot be read.

    """

    def __init__(self, models_dir: Path, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.models_dir = Path(models_dir)
        self.index_path = self.models_dir / INDEX_FILE_NAME
        try:
            self.models_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LibraryError(f"{self.models_dir} cannot be made: {error.strerror}", "Check the path") from error
        self._timeout_s = lock_timeout_s
        self._lock = FileLock(self.models_dir / LOCK_FILE_NAME, timeout=lock_timeout_s, thread_local=False)
        self._threads = threading.RLock()
        self._content = IndexContent()
        self._lines: dict[str, str] = {}
        self._signature: IndexSignature | None = None
        self._known: dict[str, Known] = {}
        self._saved_known: dict[str, Known] = {}
        self._depth = 0
        self._dirty = False
        self._open()

    # --- reading ----------------------------------------------------------------------------------

    def get(self, model_id: str) -> ModelEntry | None:
        """Return the entry with this id, or None."""
        return self._content.entries.get(model_id)

    def list_all(self, sort_by: str = "save_date", reverse: bool = True) -> list[ModelEntry]:
        """Return all entries in order of one field; missing values come last.

        Raises:
            ValueError: no such field.

        """
        return sort_entries(self._content.entries.values(), sort_by, reverse)

    def search(
        self,
        query: str = "",
        tags: list[str] | None = None,
        sort_by: str = "save_date",
        reverse: bool = True,
    ) -> list[ModelEntry]:
        """Return entries whose name or description contains `query` and that have any of `tags`.

        Case does not matter. An empty query and no tags match everything.

        Raises:
            ValueError: no such field to sort by.

        """
        found = (entry for entry in self._content.entries.values() if matches(entry, query, tags))
        return sort_entries(found, sort_by, reverse)

    def count(self) -> int:
        """Return the number of entries."""
        return len(self._content.entries)

    def refresh(self) -> bool:
        """Read the index again if another program has changed it; tell whether it had.

        Raises:
            NewerIndexError, LibraryBusyError, LibraryError: see the class.

        """
        with self._threads:
            signature = index_signature(self.index_path)
            if signature == self._signature and signature is not None:
                return False
            with self._locked():
                return self._reload_if_changed()

    # --- changing ---------------------------------------------------------------------------------

    def add_entry(self, entry: ModelEntry) -> None:
        """Add an entry, or replace the one with its id.

        Raises:
            ValueError: the entry has no id, or its file_path is not the bare name of a `.sda` file.
            LibraryBusyError: another process kept the lock for too long.
            OSError: the index cannot be written; nothing has changed.

        """
        self.add_entries([entry])

    def add_entries(self, entries: Iterable[ModelEntry]) -> None:
        """Add or replace several entries with one write; see `add_entry`."""
        wanted = list(entries)
        for entry in wanted:
            if not entry.model_id:
                raise ValueError(f"the entry of {entry.file_path!r} has no model_id")
            if not is_bare_model_name(entry.file_path):
                raise ValueError(f"file_path {entry.file_path!r} must be the bare name of a .sda file")
        if not wanted:
            return
        with self.transaction():
            for entry in wanted:
                self._put(entry)

    def remove(self, model_id: str) -> bool:
        """Take an entry out of the index (its file stays); False if there is none.

        Raises:
            LibraryBusyError, OSError: see `add_entry`.

        """
        return self.remove_many([model_id]) == 1

    def remove_many(self, model_ids: Iterable[str]) -> int:
        """Take several entries out with one write; return how many there were."""
        with self.transaction():
            return sum(self._drop(model_id) for model_id in list(model_ids))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[ModelLibrary]:
        """Hold the library's lock and write the index once, at the end, if anything changed.

        Inside it the library is what the disk says, and no other process changes it. If the body raises,
        nothing is written and the library is as before. Transactions may be nested; the outermost writes.

        Raises:
            LibraryBusyError: another process kept the lock for too long.
            OSError: the index cannot be written; nothing has changed.

        """
        with self._threads, self._locked():
            if self._depth == 0:
                self._reload_if_changed()
                self._dirty = False
            before = self._snapshot() if self._depth == 0 else None
            self._depth += 1
            try:
                yield self
                if self._depth == 1 and (self._dirty or self._signature is None):
                    self._write()
            except BaseException:
                if before is not None:
                    self._restore(before)
                else:
                    self._dirty = True
                raise
            finally:
                self._depth -= 1

    # --- repairing --------------------------------------------------------------------------------

    def plan_repair(self) -> RepairPlan:
        """Return what `repair_index` would do and why, without doing it.

        Raises:
            LibraryError: the folder cannot be listed.

        """
        self.refresh()
        return self._plan()

    def repair_index(self) -> tuple[int, int]:
        """Make the index agree with the folder and return (removed_count, added_count).

        Entries whose file is missing or outside the folder go; `.sda` files without an entry are adopted;
        entries of changed files are refreshed. A renamed file counts as removed and added.

        Raises:
            LibraryBusyError, LibraryError, OSError: see `add_entry`.

        """
        with self.transaction():
            plan = self._plan()
            self.apply_repair(plan)
        return plan.removed, plan.added

    def apply_repair(self, plan: RepairPlan) -> None:
        """Do what a plan says; a finding whose entry has changed since the plan was made is passed over."""
        with self.transaction():
            done = [finding for finding in plan.findings if self._apply(finding)]
        self._remember(plan.known)
        for finding in done:
            _report(finding)
        if done:
            events.LIBRARY_REPAIRED(
                removed=plan.removed,
                added=plan.added,
                updated=len(plan.of(FindingKind.CHANGED)),
                invalid=len(plan.of(FindingKind.INVALID)),
            )

    def _plan(self) -> RepairPlan:
        try:
            files = scan_models(self.models_dir)
        except OSError as error:
            raise LibraryError(f"{self.models_dir} cannot be listed: {error.strerror}", "Is it mounted?") from error
        return repair.plan_repair(self.models_dir, self._content.entries, files, self._known)

    def _apply(self, finding: Finding) -> bool:
        old, new = finding.old, finding.new
        if old is not None:
            current = self._content.entries.get(old.model_id)
            if current is None or current.file_path != old.file_path:
                return False
            if new is None or new.model_id != old.model_id:
                self._drop(old.model_id)
        if new is not None:
            self._put(new)
        return True

    def _remember(self, known: Mapping[str, Known]) -> None:
        if known == self._saved_known:
            return
        self._known = dict(known)
        with contextlib.suppress(OSError):  # a cache: without it the next repair takes longer
            save_known(self.models_dir, known)
            self._saved_known = dict(known)

    # --- inside -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._known = load_known(self.models_dir)
        self._saved_known = dict(self._known)
        if self.index_path.exists():
            with contextlib.suppress(ValueError, RecursionError), self.index_path.open("rb") as file:
                signature = IndexSignature.of(os.fstat(file.fileno()))
                self._content, self._signature = parse_index(file.read()), signature
                return
        elif not os.access(self.models_dir, os.W_OK):
            return
        with self.transaction():
            sweep_temporary(self.index_path)

    def _reload_if_changed(self) -> bool:
        """Read the index again if it is not the one in memory; call it under the lock."""
        signature = index_signature(self.index_path)
        if signature is not None and signature == self._signature:
            return False
        self._content, self._signature = load_index(self.index_path)
        self._lines = {}
        if self._content.needs_repair:
            plan = self._plan()
            for finding in plan.findings:
                self._apply(finding)
            self._known = dict(plan.known)
        return True

    def _put(self, entry: ModelEntry) -> None:
        stored = dataclasses.replace(entry, tags=list(entry.tags))
        self._content.entries[entry.model_id] = stored
        self._lines.pop(entry.model_id, None)
        self._dirty = True
        with contextlib.suppress(OSError):
            status = (self.models_dir / entry.file_path).lstat()
            if status.st_size == entry.file_size_bytes:
                self._known[entry.file_path] = Known(FileSignature.of(status))

    def _drop(self, model_id: str) -> bool:
        if self._content.entries.pop(model_id, None) is None:
            return False
        self._content.entry_extras.pop(model_id, None)
        self._lines.pop(model_id, None)
        self._dirty = True
        return True

    def _write(self) -> None:
        content = self._content
        for model_id, entry in content.entries.items():
            if model_id not in self._lines:
                self._lines[model_id] = encode_entry(entry, content.entry_extras.get(model_id))
        lines = (self._lines[model_id] for model_id in content.entries)
        self._signature = write_index(self.index_path, encode_index(lines, content.top_extras))
        self._dirty = False

    def _snapshot(self) -> tuple[IndexContent, dict[str, str], IndexSignature | None]:
        content = self._content
        copy = dataclasses.replace(content, entries=dict(content.entries), entry_extras=dict(content.entry_extras))
        return copy, dict(self._lines), self._signature

    def _restore(self, before: tuple[IndexContent, dict[str, str], IndexSignature | None]) -> None:
        self._content, self._lines, self._signature = before

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise LibraryBusyError(
                f"another process has kept {self._lock.lock_file} for {self._timeout_s:g} s",
                "Try again; if no program uses this library, a crashed network mount may hold the lock",
            ) from error
        except OSError as error:
            raise LibraryError(
                f"the library {self.models_dir} cannot be locked: {error.strerror}", "Check its owner and permissions"
            ) from error
        try:
            yield
        finally:
            self._lock.release()


def _report(finding: Finding) -> None:
    """Log one finding of a repair."""
    entry = finding.new or finding.old
    if entry is None:
        events.LIBRARY_FILE_INVALID(file=finding.file, reason=finding.reason)
        return
    values = {"model_id": entry.model_id, "name": entry.name, "file": finding.file, "reason": finding.reason}
    if finding.new is None:
        events.LIBRARY_ENTRY_REMOVED(**values)
    elif finding.kind in (FindingKind.CHANGED, FindingKind.MOVED):
        events.LIBRARY_ENTRY_UPDATED(**values)
    else:
        events.LIBRARY_ENTRY_ADOPTED(**values)


def _write_index_atomic(index_path: Path, data: dict[str, Any]) -> None:
    """Write an index given as a plain dict: atomically, with the previous one kept as `.bak`.

    Raises:
        OSError: it cannot be written; the temporary file is gone and the old index is untouched.
        TypeError: `data` holds something that JSON cannot express; likewise.

    """
    write_index_data(Path(index_path), data)
