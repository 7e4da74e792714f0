"""The index as this process sees it: what is in memory, what is on disk, and bringing one to the other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sda_daemon import events
from sda_daemon.access import Access, usual_access
from sda_daemon.library.content import (
    Fields,
    ForeignEntry,
    ForeignKind,
    IndexContent,
    encode_field,
)
from sda_daemon.library.entry import ModelEntry, searched_text
from sda_daemon.library.index import (
    BrokenIndex,
    IndexSignature,
    backup_path,
    give_index_access,
    index_signature,
    load_index,
    read_index,
    recover_index,
    write_index,
)
from sda_daemon.library.kept import KEPT_FILE_NAME, Kept, load_kept, put_back, remember, save_kept
from sda_daemon.library.scan import find_links

_MERGE_ATTEMPTS = 5
_MKSTEMP_MODE = 0o600


@dataclass(slots=True)
class _Changes:
    """What was changed since the file was read: it is done again if another program has written it meanwhile."""

    entries: dict[str, ModelEntry | None] = field(default_factory=dict)
    """By id; None for one that was taken out."""
    fields: dict[str, Fields] = field(default_factory=dict)
    foreign: list[ForeignEntry] = field(default_factory=list)
    """Those that were taken out."""

    def __bool__(self) -> bool:
        return bool(self.entries or self.fields or self.foreign)

    def copy(self) -> _Changes:
        return _Changes(dict(self.entries), dict(self.fields), list(self.foreign))


@dataclass(slots=True)
class _State:
    content: IndexContent
    signature: IndexSignature | None
    changes: _Changes
    kept: Kept
    put_back: tuple[str, ...]


class IndexFile:
    """The entries of one index. Not thread-safe; `write` wants the library's lock to be held.

    Attributes:
        path: the index file.
        content: the entries in memory, changes included.
        put_back: what another program had left out of the file and is in memory again, in words.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = IndexContent()
        self.put_back: tuple[str, ...] = ()
        # What a search looks into, and of which entry that was made; what is missing is made when it is searched.
        self._texts: dict[str, tuple[ModelEntry, str]] = {}
        self._version = 0  # counts the changes in memory
        self._searchable: tuple[int, list[tuple[ModelEntry, str]]] = (-1, [])  # as of which version
        self._signature: IndexSignature | None = None
        self._is_loaded = False
        self._access: Access | None = None  # what the index is meant to have; None: what is usual in the folder
        self._changes = _Changes()
        self._kept = Kept()
        self._saved_kept = Kept()
        self._kept_signature: IndexSignature | None = None
        self._told: set[str] = set()

    # --- from disk --------------------------------------------------------------------------------

    @property
    def needs_write(self) -> bool:
        """Whether memory is ahead of the disk: changed, put back, recovered, or there is none yet."""
        is_ahead = bool(self._changes or self.put_back) or self.content.is_recovered
        return is_ahead or self._signature is None

    def is_stale(self) -> bool:
        """Tell whether the file is another than the one that was read last, or was never read."""
        return not self._is_loaded or index_signature(self.path) != self._signature

    @property
    def changes(self) -> int:
        """How often memory has changed: what follows from the entries need not be found out again meanwhile."""
        return self._version

    def has_other_links(self) -> bool:
        """Tell whether other files of the folder are links than when the index was read: it must be read again."""
        return self._is_loaded and find_links(self.path.parent) != self.content.links

    @property
    def written_ns(self) -> int:
        """When what was read was written, in nanoseconds since the epoch; 0 if there is nothing.

        After a recovery that is the backup's time, not that of the broken file in front of it.
        """
        if self.content.is_recovered:
            backup = index_signature(backup_path(self.path))
            return 0 if backup is None else backup.mtime_ns
        return 0 if self._signature is None else self._signature.mtime_ns

    def load(self) -> None:
        """Read the file; a missing one is empty.

        Raises:
            BrokenIndex: it stays unreadable.
            NewerIndexError: it is of a later version.
            LibraryError: it cannot be opened.
        """
        self._take(*load_index(self.path))

    def recover(self, broken: BrokenIndex, *, keep: bool) -> None:
        """Go on with the backup, or with nothing, in place of a broken file, which is kept under a dated name.

        Args:
            broken: what `load` raised.
            keep: False where nothing may be written.

        Raises:
            OSError: the broken file cannot be kept.
        """
        self._take(recover_index(self.path, broken, keep=keep), broken.signature)

    def _take(self, content: IndexContent, signature: IndexSignature | None) -> None:
        """Go on with what was read.

        Where another program has written all of it anew, what that has left out is put back. Where it stands the way
        this program writes it, what is missing was taken out on purpose.
        """
        self._recall()
        self._learn_access(content, signature)
        if self._kept and not (content.is_own_layout and not content.is_recovered):
            self.put_back = tuple(put_back(content, self._kept, self._exists))
        else:
            self.put_back = ()
        self.content, self._signature, self._is_loaded = content, signature, True
        self._texts, self._changes = {}, _Changes()
        self._version += 1
        self._tell_unusable()

    def _recall(self) -> None:
        """Know what the index had before: another process may know more of it than this one."""
        signature = index_signature(self._kept_path)
        if signature != self._kept_signature:
            self._kept = load_kept(self.path.parent)
            self._saved_kept, self._kept_signature = self._kept.copy(), signature
        elif self._signature is not None:
            self._kept = remember(self.content, self._kept, self._exists)

    def _learn_access(self, content: IndexContent, signature: IndexSignature | None) -> None:
        """Know mode and group that the index is meant to have.

        A program that writes by `mkstemp` leaves a file that only its owner can read; that is not what anyone meant.
        """
        if self._access is None:
            self._access = self._kept.access
        if signature is None:
            return
        is_own = content.is_own_layout and not content.is_recovered
        is_same_file = self._signature is not None and self._signature.inode == signature.inode
        if signature.access.mode != _MKSTEMP_MODE or is_own or is_same_file:
            self._access = signature.access
        elif self._access is None:
            with contextlib.suppress(OSError):
                self._access = usual_access(self.path.parent)

    def mend_access(self) -> None:
        """Give the index the mode and group that it is meant to have, as far as this user may."""
        if self._signature is not None and self._access not in (None, self._signature.access):
            assert self._access is not None
            self._signature = give_index_access(self.path, self._signature, self._access)

    @property
    def _kept_path(self) -> Path:
        return self.path.with_name(KEPT_FILE_NAME)

    def _exists(self, name: str) -> bool:
        try:
            self.path.with_name(name).lstat()
        except (OSError, ValueError):
            return False
        return True

    def _tell_unusable(self) -> None:
        """Warn of entries that cannot be used, of each once."""
        for entry in self.content.foreign.values():
            if entry.kind is ForeignKind.UNUSABLE and entry.text not in self._told:
                self._told.add(entry.text)
                events.LIBRARY_ENTRY_INVALID(model_id=entry.key, reason=entry.reason)

    def searchable(self) -> list[tuple[ModelEntry, str]]:
        """Return all entries, each with the text that a search looks into; not to be changed."""
        version, found = self._searchable
        if version == self._version:
            return found
        version = self._version  # before anything is looked at: other threads may change it meanwhile
        entries, texts = list(self.content.entries.items()), self._texts
        found = []
        for model_id, entry in entries:
            pair = texts.get(model_id)
            if pair is None or pair[0] is not entry:
                pair = texts[model_id] = (entry, searched_text(entry))
            found.append(pair)
        self._searchable = version, found
        return found

    # --- changing ---------------------------------------------------------------------------------

    def put(self, entry: ModelEntry, fields: Fields = ()) -> None:
        """Add an entry or replace the one with its id.

        Args:
            entry: its 16 fields. What the entry that it replaces has beyond them stays, and what the model's entry had
                when another program left it out comes back.
            fields: what it is to have beyond the 16.
        """
        model_id = entry.model_id
        is_new = model_id not in self.content.entries
        self.content.put(entry)
        before = self._kept.fields.get(model_id) if is_new else None
        wanted = _merged((before.fields if before is not None else ()), fields)
        if wanted:
            self.content.set_fields(model_id, _merged(self.content.fields.get(model_id, ()), wanted))
            self._changes.fields[model_id] = wanted
        self._texts.pop(model_id, None)
        self._version += 1
        self._changes.entries[model_id] = entry

    def drop(self, model_id: str) -> bool:
        """Take an entry out; False if there is none."""
        if not self.content.drop(model_id):
            return False
        self._kept.fields.pop(model_id, None)
        self._changes.fields.pop(model_id, None)
        self._texts.pop(model_id, None)
        self._version += 1
        self._changes.entries[model_id] = None
        return True

    def drop_foreign(self, entry: ForeignEntry) -> bool:
        """Take a foreign entry out; False if there is no such."""
        if not self.content.drop_foreign(entry):
            return False
        self._version += 1
        self._changes.foreign.append(entry)
        return True

    def fill_fields(self, model_id: str, values: Mapping[str, Any]) -> None:
        """Give an entry fields that an index of this version has and that say nothing yet."""
        present = dict(self.content.fields.get(model_id, ()))
        filled = {name: value for name, value in values.items() if name in present and is_null(present[name])}
        if filled:
            self.put(self.content.entries[model_id], tuple(encode_field(*item) for item in filled.items()))

    def snapshot(self) -> _State:
        """Return all that `restore` needs to undo what comes."""
        content, changes = self.content.copy(), self._changes.copy()
        return _State(content, self._signature, changes, self._kept.copy(), self.put_back)

    def restore(self, state: _State) -> None:
        """Undo everything since the snapshot, in memory."""
        self.content, self._texts = state.content, {}
        self._version += 1
        self._signature, self._changes = state.signature, state.changes
        self._kept, self.put_back = state.kept, state.put_back

    # --- to disk ----------------------------------------------------------------------------------

    def write(self) -> None:
        """Replace the file by what is in memory.

        A program that knows no locks may have written the file since it was read: its version is read
        again and the changes are made to that, so that only what both changed can be lost.

        Raises:
            OSError: it cannot be written; the old index is untouched.
            NewerIndexError: the other program is a later version.
        """
        for _ in range(_MERGE_ATTEMPTS):
            if index_signature(self.path) == self._signature or not self._merge():
                break
        self.keep()
        content = self.content
        keep_backup = not content.is_recovered
        self._signature = write_index(self.path, content.encoded(), keep_backup=keep_backup, access=self._access)
        if self.put_back:
            events.LIBRARY_PUT_BACK(count=len(self.put_back), what=list(self.put_back))
        content.mark_written()
        self._changes, self.put_back = _Changes(), ()

    def keep(self) -> None:
        """Remember what another program might leave out. It must be known before such a program writes.

        Raises:
            OSError: it cannot be written.
        """
        self._kept = replace(remember(self.content, self._kept, self._exists), access=self._unusual_access())
        if self._kept != self._saved_kept:
            save_kept(self.path.parent, self._kept)
            self._saved_kept, self._kept_signature = self._kept.copy(), index_signature(self._kept_path)

    def _unusual_access(self) -> Access | None:
        """What is to be remembered of the access: nothing where it is as usual."""
        try:
            return None if self._access == usual_access(self.path.parent) else self._access
        except OSError:
            return self._access

    def _merge(self) -> bool:
        """Make our changes to what is on disk now; False if that is nothing to build on."""
        changes = self._changes
        try:
            content, signature = read_index(self.path)
        except (FileNotFoundError, BrokenIndex):
            return False
        self._take(content, signature)
        for model_id, entry in changes.entries.items():
            if entry is None:
                self.drop(model_id)
            else:
                self.put(entry, changes.fields.get(model_id, ()))
        for foreign in changes.foreign:
            self.drop_foreign(foreign)
        self._changes = changes
        return True


def is_null(member: str) -> bool:
    """Tell whether a field beyond the 16 says nothing."""
    return list(json.loads(f"{{{member}}}").values()) == [None]


def _merged(present: Fields, wanted: Fields) -> Fields:
    """Return fields with others put in, in place of those of the same name."""
    names = {name for name, _ in wanted}
    return tuple(item for item in present if item[0] not in names) + wanted
