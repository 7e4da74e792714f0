"""Making the index agree with the folder: first a plan that can be shown, then its application.

The plan is made from the index, a listing of the folder and what is known of each file; only files that
are new or changed are opened, and of those only the metadata.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

from sda_daemon import events
from sda_daemon.errors import ModelFileError
from sda_daemon.files import says_gone
from sda_daemon.library.content import ForeignEntry, ForeignKind, IndexContent
from sda_daemon.library.entry import ModelEntry, differs, is_bare_model_name
from sda_daemon.library.findings import Finding, FindingKind, RepairPlan
from sda_daemon.library.said import confirms, contradicts, follow_file, has_same_id, said_by
from sda_daemon.library.scan import LINK_REASON, UNSEEN, Known
from sda_daemon.library.trash_notes import TrashedModel
from sda_daemon.models.formats import format_of_name, without_ending
from sda_daemon.models.header import ModelHeader
from sda_daemon.models.header_process import read_header_apart
from sda_daemon.models.metadata import _sanitize_filename
from sda_daemon.os_errors import explained
from sda_daemon.signature import FileSignature, signed_64

__all__ = ["Finding", "FindingKind", "RepairPlan", "copy_id", "is_still_true", "plan_repair", "report"]
_MOST_COPIES = 10
_CLOCK_TICK_NS = 20_000_000
"""File times advance in steps of a few milliseconds: nearer to each other than this they tell no order."""


def plan_repair(
    folder: Path,
    entries: Mapping[str, ModelEntry],
    files: Mapping[str, FileSignature],
    known: Mapping[str, Known],
    index_written_ns: int = 0,
    read_header: Callable[[Path], ModelHeader] = read_header_apart,
    foreign: Collection[ForeignEntry] = (),
    left_behind: Callable[[], Iterable[TrashedModel]] = tuple,
) -> RepairPlan:
    """Compare the index with the folder.

    Args:
        folder: the models folder.
        entries: the index, by id.
        files: the model files of the folder, by name.
        known: what earlier plans learned; files with the same signature are not opened again.
        index_written_ns: when the index was written: a file of the right size that has not changed since
            is taken to be what its entry says.
        read_header: reads a file's metadata; by default in a process of its own.
        foreign: the entries of the index that are not those of models.
        left_behind: tells what the notes in the trash say of models that a crash has left in the folder.
    """
    return _Planner(folder, entries, files, known, index_written_ns, read_header, foreign, left_behind).plan()


class _Planner:
    def __init__(
        self,
        folder: Path,
        entries: Mapping[str, ModelEntry],
        files: Mapping[str, FileSignature],
        known: Mapping[str, Known],
        index_written_ns: int,
        read_header: Callable[[Path], ModelHeader],
        foreign: Collection[ForeignEntry],
        left_behind: Callable[[], Iterable[TrashedModel]],
    ) -> None:
        self.foreign = foreign
        self.left_behind = cache(left_behind)
        self.folder, self.entries, self.files, self.known = folder, entries, files, known
        self.trusted_until_ns = index_written_ns - _CLOCK_TICK_NS
        self.read_header = read_header
        self.findings: list[Finding] = []
        self.learned: dict[str, Known] = {}
        self.headers: dict[str, ModelHeader | None] = {}
        self.owner_of: dict[str, ModelEntry] = {}
        self.aliases: list[ModelEntry] = []
        """Further entries of files that have an owner."""
        self.missing: dict[str, ModelEntry] = {}
        self.taken: set[str] = {entry.key for entry in foreign}
        """Ids of entries whose file is there and says nothing else, and what foreign entries stand under."""

    def plan(self) -> RepairPlan:
        self._find_owners()
        self._check_owned()
        for entry in self.aliases:
            self._check_alias(entry)
        spoken_for = {entry.file for entry in self.foreign if entry.kind is ForeignKind.UNUSABLE}
        for name in sorted(self.files.keys() - self.owner_of.keys() - spoken_for, key=self._originality):
            self._adopt(name)
        for entry in self.missing.values():
            link = os.path.islink(self.folder / entry.file_path)  # noqa: PTH114 - Path's own raises for what it cannot see
            reason = LINK_REASON if link else "its file is gone"
            self._add(FindingKind.OUTSIDE if link else FindingKind.MISSING, entry.file_path, reason, old=entry)
        for outside in self.foreign:
            if outside.kind is ForeignKind.OUTSIDE:
                self.findings.append(Finding(FindingKind.OUTSIDE, outside.file, outside.reason, foreign=outside))
        others = tuple(entry for entry in self.foreign if entry.kind is not ForeignKind.OUTSIDE)
        return RepairPlan(tuple(self.findings), self.learned, self.known, len(self.entries), others)

    def _add(
        self, kind: FindingKind, file: str, reason: str, old: ModelEntry | None = None, new: ModelEntry | None = None
    ) -> None:
        header = self.headers.get(file)
        vocoder = header.vocoder if header is not None else None
        self.findings.append(Finding(kind, file, reason, old, new, fields={"vocoder": vocoder} if vocoder else {}))
        if new is not None and file in self.learned:
            self.learned[file] = replace(self.learned[file], model_id=new.model_id)

    def _find_owners(self) -> None:
        """Give each file the one entry that speaks for it."""
        for entry in self.entries.values():
            name = entry.file_path
            if name not in self.files:
                self.missing[entry.model_id] = entry
            elif name not in self.owner_of:
                self.owner_of[name] = entry
            else:
                self._settle_shared(entry)

    def _settle_shared(self, entry: ModelEntry) -> None:
        name, other = entry.file_path, entry
        if self._id_at(name) == entry.model_id:
            other, self.owner_of[name] = self.owner_of[name], entry
        self.aliases.append(other)

    def _id_at(self, name: str) -> str:
        """The id of the model in a file, as far as that is known or can be read, else an empty text."""
        known = self.known.get(name)
        if known is not None and known.signature == self.files[name] and known.model_id:
            return known.model_id
        header = self._header(name)
        return "" if header is None else header.metadata.model_id

    def _check_alias(self, entry: ModelEntry) -> None:
        """Let a further entry of a file go only if it tells of another model, whose file this is no more."""
        name = entry.file_path
        owner, header = self.owner_of[name], self.headers.get(name)
        if header is None and entry.file_size_bytes != self.files[name].size_bytes:
            header = self._header(name)
        now = owner.metadata() if header is None or owner.model_id in self.taken else header.metadata
        if contradicts(entry, now):
            self._add(FindingKind.SHARED, name, f"entry {owner.model_id} has the same file", old=entry)
            return
        self.taken.add(entry.model_id)
        if header is not None:
            self._refresh(name, entry, header, "")

    def _refresh(self, name: str, entry: ModelEntry, header: ModelHeader, before: str) -> None:
        self._update(name, entry, _followed(entry, header, name, before))

    def _update(self, name: str, entry: ModelEntry, fresh: ModelEntry) -> None:
        if differs(entry, fresh.to_dict()):
            self._add(FindingKind.CHANGED, name, "the file has changed", old=entry, new=fresh)

    def _is_stale(self, name: str, entry: ModelEntry) -> bool:
        """Tell whether an entry is older than a file that has not changed since: written from an old memory."""
        known, signature = self.known.get(name), self.files[name]
        return known is not None and known.signature == signature and entry.file_size_bytes != signature.size_bytes

    def _check_owned(self) -> None:
        """Refresh entries whose file has changed; a file that holds another model now gets that one's entry."""
        strangers: list[tuple[str, ModelEntry, ModelHeader]] = []
        for name, entry in self.owner_of.items():
            header = None if self._agrees(name, entry) else self._header(name)
            if header is not None and not self._is_of(entry, header):
                strangers.append((name, entry, header))
                continue
            self.taken.add(entry.model_id)
            if header is not None:
                self.learned[name] = replace(self.learned[name], model_id=entry.model_id)
                if self._is_stale(name, entry):
                    self._update(name, entry, _entry_of(header, name, entry.model_id))
                else:
                    self._refresh(name, entry, header, self._said_before(name, entry.model_id))
        for name, entry, header in strangers:
            self._replace(name, entry, header)

    def _is_of(self, entry: ModelEntry, header: ModelHeader) -> bool:
        """Tell whether an entry is that of what its file holds, also if it stands under another id than the file says.

        That is nobody's fault: the application's presets and its history know the model by the id in the index.
        """
        metadata = header.metadata
        if metadata.model_id in ("", entry.model_id, self._original_of(entry)) or confirms(entry, metadata):
            return True
        known = self.known.get(entry.file_path)
        was_here = known is not None and known.model_id == entry.model_id
        if was_here and known is not None and has_same_id(known.said, metadata):
            return True
        if metadata.model_id in self.entries or contradicts(entry, metadata):
            return False
        return known is None or not known.model_id or (was_here and not known.said)

    def _said_before(self, name: str, model_id: str) -> str:
        known = self.known.get(name)
        return known.said if known is not None and known.model_id == model_id else ""

    def _agrees(self, name: str, entry: ModelEntry) -> bool:
        signature, known = self.files[name], self.known.get(name)
        if entry.file_size_bytes != signature.size_bytes:
            return False
        if known is None and not self._unchanged_since_index(name):
            return False
        if known is not None and (known.signature != signature or known.model_id != entry.model_id):
            return False  # another content, or another entry: files of two models may well have the same size
        self.learned[name] = known or Known(signature, model_id=entry.model_id)
        return True

    def _unchanged_since_index(self, name: str) -> bool:
        try:
            return (self.folder / name).lstat().st_ctime_ns < self.trusted_until_ns
        except OSError:
            return False

    def _original_of(self, entry: ModelEntry) -> str:
        """The id that is in the file of an entry that was adopted as a copy, else an empty text."""
        header = self.headers.get(entry.file_path)
        original = header.metadata.model_id if header is not None else ""
        ids = islice(_copy_ids(original, entry.file_path), _MOST_COPIES)
        return original if original and entry.model_id in ids else ""

    def _replace(self, name: str, entry: ModelEntry, header: ModelHeader) -> None:
        model_id = header.metadata.model_id
        if model_id in self.missing:  # moved over another model's file
            self._add(FindingKind.REPLACED, name, f"model {model_id} was moved over it", old=entry)
            self._follow(name, header, self.missing[model_id])
            return
        reason = f"it holds model {model_id} now"
        if model_id in self.taken:
            reason = f"it is a copy of model {model_id} now"
            model_id = next(found for found in _copy_ids(model_id, name) if found not in self.taken)
        self.taken.add(model_id)
        self._add(FindingKind.REPLACED, name, reason, old=entry, new=_entry_of(header, name, model_id))

    def _follow(self, name: str, header: ModelHeader, first: ModelEntry) -> None:
        """Let a missing entry follow its file, and all others of the file; what only the index says is kept."""
        before = self.known.get(first.file_path)
        same = before is not None and before.signature == self.files[name]
        others = [entry for entry in self.missing.values() if entry.file_path == first.file_path and entry is not first]
        for old in (first, *(entry for entry in others if not contradicts(entry, header.metadata))):
            del self.missing[old.model_id]
            said = self._said_before(old.file_path, old.model_id)
            new = replace(old, file_path=name) if same else _followed(old, header, name, said)
            self.taken.add(old.model_id)
            self._add(FindingKind.MOVED, name, f"renamed from {old.file_path}", old=old, new=new)

    def _missing_of(self, name: str, header: ModelHeader, model_id: str) -> ModelEntry | None:
        """Return the missing entry whose file has another name now, whatever id it stands under; None without one."""
        if model_id in self.missing:
            return self.missing[model_id]
        for entry in self.missing.values():
            known = self.known.get(entry.file_path)
            if known is not None and (known.signature, known.model_id) == (self.files[name], entry.model_id):
                return entry
        if model_id in self.taken or not header.metadata.save_date:
            return None
        size_bytes = self.files[name].size_bytes
        for entry in self.missing.values():
            if entry.file_size_bytes == size_bytes and confirms(entry, header.metadata):
                return entry
        return None

    def _originality(self, name: str) -> tuple[bool, int, int, str]:
        """Sort key that puts an original before its copies: named after its model, then older, then shorter."""
        header = self._header(name)
        stem = "" if header is None else _sanitize_filename(header.metadata.name)
        return not (stem and name.startswith(stem)), self.files[name].mtime_ns, len(name), name

    def _adopt(self, name: str) -> None:
        header = self._header(name)
        if header is None:
            return
        model_id = header.metadata.model_id or _id_of(f"sda-daemon:file:{name}")
        moved = self._missing_of(name, header, model_id)
        if moved is not None:
            self._follow(name, header, moved)
            return
        if model_id in self.taken:
            copied = next(found for found in _copy_ids(model_id, name) if found not in self.taken)
            old = self.missing.pop(copied, None)
            new = _entry_of(header, name, copied) if old is None else _followed(old, header, name, "")
            is_foreign = any(entry.key == model_id for entry in self.foreign)
            reason = f"something else stands under its id {model_id}" if is_foreign else f"a copy of model {model_id}"
            self._add(FindingKind.COPY, name, reason, old=old, new=new)
            self.taken.add(copied)
            return
        noted = self._note_about(name, header, model_id)
        if noted is None:
            self._add(FindingKind.ORPHAN, name, "it has no entry", new=_entry_of(header, name, model_id))
            self.taken.add(model_id)
            return
        new = _followed(noted.entry, header, name, "")
        self._add(FindingKind.ORPHAN, name, "it has no entry any more", new=new)
        self.findings[-1] = replace(self.findings[-1], noted=noted.fields)
        self.taken.add(new.model_id)

    def _note_about(self, name: str, header: ModelHeader, model_id: str) -> TrashedModel | None:
        """Return what a note in the trash says of a model that was to go there, or was to come back; None without."""
        for item in self.left_behind():
            entry = item.entry
            is_it = entry.model_id == model_id or (entry.file_path == name and confirms(entry, header.metadata))
            if is_it and entry.model_id not in self.taken and not contradicts(entry, header.metadata):
                return item
        return None

    def _header(self, name: str) -> ModelHeader | None:
        """Read a file's metadata, once; None (and a finding the first time) if it is no model."""
        if name in self.headers:
            return self.headers[name]
        self.headers[name] = None
        known = self.known.get(name)
        if known is not None and known.reason and known.signature == self.files[name] != UNSEEN:
            self.learned[name] = known
            return None
        try:
            header = self.read_header(self.folder / name)
            _check_ending(name, header)
        except (ModelFileError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                self._cannot_read(name, error)
            return None
        self.headers[name] = header
        self.learned[name] = Known(
            FileSignature(header.size_bytes, signed_64(header.mtime_ns), signed_64(header.inode)),
            said=said_by(header.metadata),
        )
        return header

    def _cannot_read(self, name: str, error: Exception) -> None:
        """A broken file is not read again until it changes, one that may not be read is tried each time."""
        signature = self.files[name] if isinstance(error, ModelFileError) else UNSEEN
        reason = explained(error)
        known, self.learned[name] = self.known.get(name), Known(signature, reason)
        if known is None or known.reason != reason:
            self._add(FindingKind.INVALID, name, reason)


def _check_ending(name: str, header: ModelHeader) -> None:
    """Refuse a file whose ending is that of another generation: the application that looks for it refuses it too.

    Raises:
        ModelFileError: it is so; the message says what to do.
    """
    if (expected := format_of_name(name)) is not None and expected is not header.format:
        raise ModelFileError(
            f"{name} holds a model of the format {header.format.name}, which no application opens under this name",
            f"Rename it to {without_ending(name)}{header.format.ending}",
        )


def _entry_of(header: ModelHeader, name: str, model_id: str) -> ModelEntry:
    metadata = replace(header.metadata, model_id=model_id)
    return ModelEntry.from_metadata(metadata, name, header.size_bytes)


def _followed(entry: ModelEntry, header: ModelHeader, name: str, before: str) -> ModelEntry:
    """Return an entry after another look at its file; see `library.said`."""
    values = follow_file(entry, header.metadata, before)
    return replace(entry, **values, file_path=name, file_size_bytes=header.size_bytes)


def is_still_true(finding: Finding, folder: Path, content: IndexContent, plan: RepairPlan) -> bool:
    """Tell whether a finding still holds: its entry is as it was, and so is its file.

    What cannot be seen at the moment is not acted on.
    """
    if finding.foreign is not None:
        return finding.foreign in content.foreign.values()
    if finding.old is not None:
        current = content.entries.get(finding.old.model_id)
        if current is None or current.file_path != finding.old.file_path:
            return False
    try:
        now = FileSignature.of((folder / finding.file).lstat()) if is_bare_model_name(finding.file) else None
    except OSError as error:
        if not says_gone(error):
            return False
        now = None
    if finding.kind is FindingKind.MISSING:
        return now is None
    if finding.new is None:
        return True
    known = plan.known.get(finding.file)
    return known is None or known.signature == now


def report(finding: Finding) -> None:
    """Log one finding that has been acted on."""
    entry = finding.new or finding.old
    if finding.foreign is not None:
        events.LIBRARY_ENTRY_REMOVED(model_id=finding.old_id, file=finding.file, reason=finding.reason)
        return
    if entry is None:
        events.LIBRARY_FILE_INVALID(file=finding.file, reason=finding.reason)
        return
    values = {"model_id": entry.model_id, "name": entry.name, "file": finding.file, "reason": finding.reason}
    if finding.new is None:
        events.LIBRARY_ENTRY_REMOVED(**values)
    elif finding.old is not None:
        events.LIBRARY_ENTRY_UPDATED(**values)
    else:
        events.LIBRARY_ENTRY_ADOPTED(**values)


def copy_id(original_id: str, name: str) -> str:
    """Return the id of a copied file: the same each time the index is rebuilt."""
    return _id_of(f"sda-daemon:copy:{original_id}:{name}")


def _copy_ids(original_id: str, name: str) -> Iterator[str]:
    """Yield the ids that a copied file may have, the usual one first: another copy may have taken that with it."""
    found = original_id
    while True:
        found = copy_id(found, name)
        yield found


def _id_of(text: str) -> str:
    encodable = text.encode("utf-8", "backslashreplace").decode()  # file names may hold any bytes
    return str(uuid.uuid5(uuid.NAMESPACE_URL, encodable))
