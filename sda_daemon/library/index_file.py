"""The index as this process sees it: what is in memory, what is on disk, and bringing one to the other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sda_daemon.library.entry import ModelEntry, searched_text
from sda_daemon.library.index import (
    BrokenIndex,
    IndexContent,
    IndexSignature,
    backup_path,
    encode_entry,
    encode_index,
    index_signature,
    load_index,
    read_index,
    recover_index,
    write_index,
)

_MERGE_ATTEMPTS = 5


@dataclass(slots=True)
class _State:
    content: IndexContent
    lines: dict[str, bytes]
    signature: IndexSignature | None
    changes: dict[str, ModelEntry | None]


class IndexFile:
    """The entries of one index. Not thread-safe; `write` wants the library's lock to be held.

    Attributes:
        path: the index file.
        content: the entries in memory, changes included.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = IndexContent()
        self._lines: dict[str, bytes] = {}  # encoded entries; what is missing is encoded when it is written
        # What a search looks into, and of which entry that was made; what is missing is made when it is searched.
        self._texts: dict[str, tuple[ModelEntry, str]] = {}
        self._version = 0  # counts the changes in memory
        self._searchable: tuple[int, list[tuple[ModelEntry, str]]] = (-1, [])  # as of which version
        self._signature: IndexSignature | None = None
        self._changes: dict[str, ModelEntry | None] = {}

    # --- from disk --------------------------------------------------------------------------------

    @property
    def needs_write(self) -> bool:
        """Whether memory is ahead of the disk: changed, recovered from a broken index, or there is none yet."""
        return bool(self._changes) or self.content.is_recovered or self._signature is None

    def is_stale(self) -> bool:
        """Tell whether the file is another than the one that was read last."""
        return index_signature(self.path) != self._signature

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
        content, signature = load_index(self.path)
        self._take(content, signature)

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
        self.content, self._signature = content, signature
        self._lines, self._texts, self._changes = {}, {}, {}
        self._version += 1

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

    def put(self, entry: ModelEntry) -> None:
        """Add an entry or replace the one with its id."""
        self.content.entries[entry.model_id] = entry
        self._lines.pop(entry.model_id, None)
        self._texts.pop(entry.model_id, None)
        self._version += 1
        self._changes[entry.model_id] = entry

    def drop(self, model_id: str) -> bool:
        """Take an entry out; False if there is none."""
        if self.content.entries.pop(model_id, None) is None:
            return False
        self.content.entry_extras.pop(model_id, None)
        self._lines.pop(model_id, None)
        self._texts.pop(model_id, None)
        self._version += 1
        self._changes[model_id] = None
        return True

    def snapshot(self) -> _State:
        """Return all that `restore` needs to undo what comes."""
        content = dataclasses.replace(
            self.content, entries=dict(self.content.entries), entry_extras=dict(self.content.entry_extras)
        )
        return _State(content, dict(self._lines), self._signature, dict(self._changes))

    def restore(self, state: _State) -> None:
        """Undo everything since the snapshot, in memory."""
        self.content, self._lines, self._texts = state.content, state.lines, {}
        self._version += 1
        self._signature, self._changes = state.signature, state.changes

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
        content = self.content
        for model_id, entry in content.entries.items():
            if model_id not in self._lines:
                self._lines[model_id] = encode_entry(entry, content.entry_extras.get(model_id))
        lines = [self._lines[model_id] for model_id in content.entries]
        chunks = encode_index(lines, content.top_extras)
        self._signature = write_index(self.path, chunks, keep_backup=not content.is_recovered)
        content.is_recovered = False
        self._changes = {}

    def _merge(self) -> bool:
        """Make our changes to what is on disk now; False if that is nothing to build on."""
        changes = self._changes
        try:
            content, signature = read_index(self.path)
        except (FileNotFoundError, BrokenIndex):
            return False
        self._take(content, signature)
        for model_id, entry in changes.items():
            if entry is None:
                self.drop(model_id)
            else:
                self.put(entry)
        self._changes = changes
        return True
