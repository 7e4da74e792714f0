"""The library: all models of a folder, their index, and every change to it.

Many processes may use one folder. Each change is read-modify-write under a file lock: if another
program has changed the index since it was last read, it is read again first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sda_daemon import events
from sda_daemon.errors import (
    ForeignEntryError,
    LibraryBusyError,
    LibraryError,
    LibraryReadOnlyError,
    LibraryUnreadableError,
)
from sda_daemon.files import find_temporary, sweep_temporary
from sda_daemon.library import repair
from sda_daemon.library.content import Fields, ForeignEntry, ForeignKind
from sda_daemon.library.entry import ModelEntry, check_entry, is_bare_model_name, search_entries, sort_entries
from sda_daemon.library.findings import PRUNE_HINT
from sda_daemon.library.index import INDEX_FILE_NAME, BrokenIndex, index_signature, write_index_data
from sda_daemon.library.index_file import IndexFile
from sda_daemon.library.naming import shared_names
from sda_daemon.library.repair import Finding, FindingKind, RepairPlan
from sda_daemon.library.said import said_by
from sda_daemon.library.scan import Known, load_known, save_known, scan_models
from sda_daemon.library.trash_notes import abandoned_notes, drop_abandoned_notes
from sda_daemon.library.weights import KnownWeights
from sda_daemon.os_errors import describe, is_refusal, remedy
from sda_daemon.signature import FileSignature
from sda_daemon.small_files import check_regular
from sda_daemon.wording import quoted

SHARED_HINT = "the training application finds models by name; sda-daemon models edit ID --name …"
_MOST_NAMES = 20
LOCK_FILE_NAME = ".model_library.lock"
LOCK_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.01
_TEMPORARY_PREFIX = "model_library."


class ModelLibrary:
    """The models of one folder.

    Reading answers from memory, as of the last `refresh()` or change; every change reads what others
    have written first. Entries that are returned belong to the library: change a copy and `add_entry` it.
    Safe to use from several threads. A folder that may not be written can be read all the same.

    Args:
        models_dir: the folder; it is made if it is not there.
        lock_timeout_s: how long a change waits for other processes, in seconds.

    Attributes:
        weights: which weights the files hold, as far as that is known; for one thread.

    Raises:
        NewerIndexError: the index was written by a later version.
        LibraryUnreadableError: the folder or the index may not be read.
        LibraryReadOnlyError: the folder is not there, and may not be made.
        LibraryError: either is impossible for another reason.
    """

    def __init__(self, models_dir: Path, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.models_dir = Path(models_dir)
        self.index_path = self.models_dir / INDEX_FILE_NAME
        self.weights = KnownWeights(self.models_dir)
        try:
            self.models_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            kind = LibraryReadOnlyError if remedy(error) else LibraryError
            hint = remedy(error) or "Check the path"
            raise kind(f"{self.models_dir} cannot be made: {error.strerror}", hint) from error
        self._timeout_s = lock_timeout_s
        # Anyone's: whoever makes the lock file must not keep other users of the folder out of it.
        self._lock = FileLock(self.models_dir / LOCK_FILE_NAME, timeout=lock_timeout_s, thread_local=False, mode=0o666)
        self._threads = threading.RLock()
        self._index = IndexFile(self.index_path)
        self._known: dict[str, Known] = {}
        self._saved_known: dict[str, Known] = {}
        self._told: set[ForeignEntry] = set()
        self._told_names: set[str] = set()  # those that several models have
        self._names_looked_at = -1  # as of which change of the index
        self._depth = 0
        self._open()

    # --- reading ----------------------------------------------------------------------------------

    def get(self, model_id: str) -> ModelEntry | None:
        """Return the entry with this id, or None."""
        return self._index.content.entries.get(model_id)

    def holds(self, model_id: str) -> bool:
        """Tell whether a model is really there: an entry, and a regular file of the size that the entry says."""
        entry = self.get(model_id)
        if entry is None or not is_bare_model_name(entry.file_path):
            return False
        try:
            status = (self.models_dir / entry.file_path).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == entry.file_size_bytes

    def list_all(self, sort_by: str = "save_date", reverse: bool = True) -> list[ModelEntry]:
        """Return all entries in order of one field; missing values come last.

        Raises:
            ValueError: no such field.
        """
        return sort_entries(self._entries(), sort_by, reverse)

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
        return sort_entries(search_entries(self._index.searchable(), query, tags), sort_by, reverse)

    def entries(self) -> list[ModelEntry]:
        """Return all entries in the order of the index, which takes no time."""
        return self._entries()

    def entries_of(self, entry: ModelEntry) -> list[ModelEntry]:
        """Return an entry and all others of the same file, which other programs may have made."""
        return [entry, *(item for item in self._entries() if item.file_path == entry.file_path and item is not entry)]

    def count(self) -> int:
        """Return the number of entries."""
        return len(self._index.content.entries)

    def foreign(self) -> list[ForeignEntry]:
        """Return the entries of the index that are not those of models which this program knows.

        They belong to other programs, to versions to come, or point out of the folder, and stay as they are.
        """
        return list(self._index.content.foreign.values())

    def contents(self) -> dict[str, FileSignature]:
        """Return the model files that agreed with their entries at the last look, each with its content."""
        return {file: known.signature for file, known in list(self._known.items()) if not known.reason}

    @property
    def index_version(self) -> int:
        """The version of the index, which is that of the application that uses this folder."""
        return self._index.content.version

    def refresh(self) -> bool:
        """Read the index again if another program has changed it; tell whether it had.

        Raises:
            NewerIndexError, LibraryBusyError, LibraryError: see the class.
        """
        with self._threads:
            if self._depth or not self._index.is_stale():
                return False
            before = self._index.content
            self._load()
            return self._index.content is not before

    def _load(self) -> None:
        try:
            self._index.load()
        except BrokenIndex as broken:
            self._recover(broken)

    def _entries(self) -> list[ModelEntry]:
        return list(self._index.content.entries.values())  # at once: other threads may change the dict

    # --- changing ---------------------------------------------------------------------------------

    def add_entry(self, entry: ModelEntry, *, said: str | None = None) -> None:
        """Add an entry, or replace the one with its id.

        Args:
            entry: the entry.
            said: what its file says, see `library.said`, empty if that is not known; by default the same as a new
                entry.

        Raises:
            ValueError: the entry has no id, its file_path is not the bare name of a model file, or a field has a value
                of another kind than the index holds there.
            ForeignEntryError: something of another program stands under its id in the index.
            LibraryBusyError: another process kept the lock for too long.
            OSError: the index cannot be written; nothing has changed.
        """
        check_entry(entry)
        with self.transaction():
            self.check_free(entry.model_id)
            self._put(entry, said)

    def add_entries(self, entries: Iterable[ModelEntry]) -> None:
        """Add or replace several entries with one write; see `add_entry`."""
        wanted = list(entries)
        for entry in wanted:
            check_entry(entry)
        if not wanted:
            return
        with self.transaction():
            self.check_free(*(entry.model_id for entry in wanted))
            for entry in wanted:
                self._put(entry)

    def check_free(self, *model_ids: str) -> None:
        """Refuse to write over what another program has put into the index.

        Raises:
            ForeignEntryError: something of another program stands under one of these ids in the index.
        """
        foreign = self._index.content.foreign_keys()
        for model_id in model_ids:
            if model_id in foreign:
                raise ForeignEntryError(
                    f"under the id {quoted(model_id)} the index has something that this program does not understand",
                    "Look at it with: sda-daemon models repair --dry-run",
                )

    def fields_of(self, model_id: str) -> Fields:
        """Return what an entry has beyond the 16 fields, each as it stands in the index."""
        return self._index.content.fields.get(model_id, ())

    def set_fields(self, model_id: str, fields: Fields) -> None:
        """Give an entry fields beyond the 16, in place of those of the same names; see `fields_of`.

        Raises:
            KeyError: there is no such entry.
            LibraryBusyError, OSError: see `add_entry`.
        """
        if fields:
            with self.transaction():
                self._index.put(self._index.content.entries[model_id], fields)

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
    def locked(self) -> Iterator[None]:
        """Hold the library's lock; each change inside is written at once, and no other process sees what is between.

        Raises:
            LibraryBusyError: another process kept the lock for too long.
        """
        with self._threads, self._locked():
            yield

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
            outermost = self._depth == 0
            before, known = self._index.snapshot(), dict(self._known)
            self._depth += 1
            try:
                if outermost:
                    self._load_under_lock()
                    self._index.mend_access()
                yield self
                if outermost:
                    self._write()
            except BaseException:
                self._index.restore(before)
                self._known = known
                raise
            finally:
                self._depth -= 1

    def _write(self) -> None:
        """Write the index if it has changed, and remember in any case what another program might leave out of it."""
        if self._index.needs_write:
            self._index.write()
            return
        with contextlib.suppress(OSError):
            self._index.keep()

    def _load_under_lock(self) -> None:
        """Read the index if it is not the one in memory; recover and complete it if it is broken."""
        if not self._index.is_stale() and not self._index.content.is_recovered:
            return
        try:
            self._index.load()
        except BrokenIndex as broken:
            self._index.recover(broken, keep=True)
            self._complete()

    def _complete(self) -> None:
        """Repair what was recovered from a backup, in memory.

        What is missing is left to those who give it time to come back.
        """
        plan = self._plan().without([FindingKind.MISSING, FindingKind.OUTSIDE])
        if plan.is_mass_removal:
            plan = plan.without_removals()
        for finding in self._apply(plan):
            repair.report(finding)
        self._known = dict(plan.known)

    def _recover(self, broken: BrokenIndex) -> None:
        """Recover a broken index; where the folder cannot be written, in memory only."""
        try:
            with self.transaction():
                pass
        except (LibraryReadOnlyError, OSError):
            self._index.recover(broken, keep=False)
            self._complete()

    # --- repairing --------------------------------------------------------------------------------

    def plan_repair(self) -> RepairPlan:
        """Return what `repair_index` would do and why, without doing it.

        Raises:
            LibraryError: the folder cannot be listed.
        """
        with self._threads:
            if not self._depth and self._index.has_other_links():
                self._load()
            self.refresh()
            plan = self._plan()
            if not self._depth:
                self._known.update(plan.settled())  # what is found is looked at again until it is dealt with
            return plan

    def repair_index(self, *, prune_most: bool = False) -> tuple[int, int]:
        """Make the index agree with the folder and return (removed_count, added_count).

        Entries whose file is missing go; model files without an entry are adopted; entries of changed files are
        refreshed. A renamed file counts as removed and added. What another program has left out of the index without
        knowing it is put back. Entries of other programs, and those that point out of the folder, stay. Where most
        entries would go at once, none goes: rather is a disk not mounted.

        Args:
            prune_most: they are really gone.

        Raises:
            LibraryBusyError, LibraryError, OSError: see `add_entry`.
        """
        with self.transaction():
            plan = self._plan().without([FindingKind.OUTSIDE])
            if plan.is_mass_removal and not prune_most:
                events.LIBRARY_PRUNE_REFUSED(missing=plan.removed_ids, known=plan.entries, hint=PRUNE_HINT)
                plan = plan.without_removals()
            done = self.apply_repair(plan)
        return sum(finding.removes for finding in done), sum(finding.adds for finding in done)

    def apply_repair(self, plan: RepairPlan) -> list[Finding]:
        """Do what a plan says and return what was done.

        A finding that is no longer true, because entry or file have changed since the plan was made, is passed over.

        Raises:
            LibraryBusyError, OSError: see `add_entry`.
        """
        with self.locked():
            with self.transaction():
                done = self._apply(plan)
            if any(finding.adds for finding in done):
                drop_abandoned_notes(self.models_dir, self._index.content.entries.__contains__)
        self._remember(plan, done)
        for finding in done:
            repair.report(finding)
        self._tell_foreign()
        self._tell_shared_names()
        if done:
            events.LIBRARY_REPAIRED(
                removed=sum(finding.removes for finding in done),
                added=sum(finding.adds for finding in done),
                updated=sum(finding.kind is FindingKind.CHANGED for finding in done),
                invalid=sum(finding.kind is FindingKind.INVALID for finding in done),
            )
        return done

    def _tell_foreign(self) -> None:
        """Say once of each entry of another program that it is there; of those that cannot be used it was said."""
        for entry in self.foreign():
            if entry.kind is not ForeignKind.UNUSABLE and entry not in self._told:
                self._told.add(entry)
                events.LIBRARY_ENTRY_FOREIGN(key=entry.key, file=entry.file, reason=entry.reason)

    def _tell_shared_names(self) -> None:
        """Say once of each name that several models have it: what others have saved keeps the name that it has."""
        if self._index.changes == self._names_looked_at:
            return
        self._names_looked_at = self._index.changes
        shared = {found[0].name.casefold(): found for found in shared_names(self.entries())}
        new = [found for name, found in shared.items() if name not in self._told_names]
        self._told_names = set(shared)
        if new:
            names = [found[0].name for found in new[:_MOST_NAMES]]
            files = [entry.file_path for entry in new[0][:_MOST_NAMES]]
            events.LIBRARY_NAMES_SHARED(count=len(new), names=names, files=files, hint=SHARED_HINT)

    def _plan(self) -> RepairPlan:
        try:
            files = scan_models(self.models_dir)
        except OSError as error:
            kind = LibraryUnreadableError if is_refusal(error) else LibraryError
            hint = remedy(error) or "Is it mounted?"
            raise kind(f"{self.models_dir} cannot be listed: {error.strerror}", hint) from error
        content = self._index.content
        plan = repair.plan_repair(
            self.models_dir,
            content.entries,
            files,
            self._known,
            self._index.written_ns,
            foreign=content.foreign.values(),
            left_behind=lambda: abandoned_notes(self.models_dir),
        )
        return dataclasses.replace(plan, put_back=self._index.put_back)

    def _apply(self, plan: RepairPlan) -> list[Finding]:
        """Change the entries in memory; return the findings that are still true."""
        content = self._index.content
        entries = content.entries
        true = [finding for finding in plan.findings if repair.is_still_true(finding, self.models_dir, content, plan)]
        for finding in true:
            if finding.foreign is not None:
                self._index.drop_foreign(finding.foreign)
            elif finding.old is not None and finding.removes_id:
                self._index.drop(finding.old.model_id)
        done = []
        for finding in true:
            if finding.new is not None:
                old_id = finding.old.model_id if finding.old is not None else None
                if finding.new.model_id in entries and finding.new.model_id != old_id:
                    continue  # another program has added it meanwhile
                if finding.new.model_id in content.foreign_keys():
                    continue  # likewise, and this program does not know what it is
                self._put(finding.new)
                if finding.noted:
                    self._index.put(finding.new, finding.noted)
                self._index.fill_fields(finding.new.model_id, finding.fields)
            done.append(finding)
        return done

    def _remember(self, plan: RepairPlan, done: list[Finding]) -> None:
        files = {finding.file for finding in done}
        known = plan.without(finding.file for finding in plan.findings if finding.file not in files).known
        self._known = dict(known)
        if known == self._saved_known:
            return
        with contextlib.suppress(OSError):  # a cache: without it the next repair takes longer
            save_known(self.models_dir, known)
            self._saved_known = dict(known)

    # --- inside -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._known = load_known(self.models_dir)
        self._saved_known = dict(self._known)
        self.refresh()
        if index_signature(self.index_path) is None:
            with contextlib.suppress(LibraryReadOnlyError, OSError), self.transaction():
                pass  # makes it
        self._sweep()

    def _sweep(self) -> None:
        """Remove what writers left behind that were killed; those that live hold the lock."""
        with contextlib.suppress(OSError, LibraryError):
            if find_temporary(self.models_dir, _TEMPORARY_PREFIX):
                with self._locked(timeout_s=0):
                    sweep_temporary(self.models_dir, _TEMPORARY_PREFIX)

    def _put(self, entry: ModelEntry, said: str | None = None) -> None:
        is_new = entry.model_id not in self._index.content.entries
        self._index.put(dataclasses.replace(entry, tags=list(entry.tags)))
        with contextlib.suppress(OSError):
            status = (self.models_dir / entry.file_path).lstat()
            if status.st_size == entry.file_size_bytes:
                signature, before = FileSignature.of(status), self._known.get(entry.file_path)
                if said is None and before is not None and before.signature == signature:
                    said = before.said
                elif said is None:
                    said = said_by(entry.metadata()) if is_new else ""
                self._known[entry.file_path] = Known(signature, model_id=entry.model_id, said=said)

    def know(self, entry: ModelEntry, what_it_says: Callable[[], str]) -> None:
        """Remember, also for later processes, what a model's file says; see `library.said`.

        Args:
            entry: the model's.
            what_it_says: tells it, if it is not known.

        Raises:
            ModelFileError, OSError: as `what_it_says` does, or the file is gone.
        """
        with self.transaction():
            signature = FileSignature.of((self.models_dir / entry.file_path).lstat())
            saved = load_known(self.models_dir)
            known = saved.get(entry.file_path)
            if known is None or (known.signature, known.model_id) != (signature, entry.model_id) or not known.said:
                saved[entry.file_path] = Known(signature, model_id=entry.model_id, said=what_it_says())
                with contextlib.suppress(OSError):  # a cache
                    save_known(self.models_dir, saved)

    def remove_outside(self, key: str) -> bool:
        """Take out what points out of the folder under a key; False if nothing there does."""
        with self.transaction():
            found = [entry for entry in self.foreign() if entry.key == key and entry.kind is ForeignKind.OUTSIDE]
            return sum(self._index.drop_foreign(entry) for entry in found) > 0

    def _drop(self, model_id: str) -> bool:
        return self._index.drop(model_id)

    @contextlib.contextmanager
    def _locked(self, timeout_s: float | None = None) -> Iterator[None]:
        try:
            check_regular(self.models_dir / LOCK_FILE_NAME)
            self._lock.acquire(timeout=timeout_s, poll_interval=_LOCK_POLL_S)
        except Timeout as error:
            raise LibraryBusyError(
                f"another process has kept {self._lock.lock_file} for {self._timeout_s:g} s",
                "Try again; if no program uses this library, a crashed network mount may hold the lock",
            ) from error
        except (OSError, NotImplementedError) as error:
            raise LibraryReadOnlyError(
                f"the library {self.models_dir} cannot be changed: its lock file cannot be opened ({_why(error)})",
                "Check the folder's owner and permissions, and whether it is mounted read-only",
            ) from error
        try:
            yield
        finally:
            self._lock.release()


def _why(error: Exception) -> str:
    return describe(error) if isinstance(error, OSError) else str(error)


def _write_index_atomic(index_path: Path, data: dict[str, Any]) -> None:
    """Write an index given as a plain dict: atomically, with the previous one kept as `.bak`.

    Raises:
        OSError: it cannot be written; the temporary file is gone and the old index is untouched.
        TypeError: `data` holds something that JSON cannot express; likewise.
    """
    write_index_data(Path(index_path), data)
