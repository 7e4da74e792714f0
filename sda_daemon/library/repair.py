"""Making the index agree with the folder: first a plan that can be shown, then its application.

The plan is made from the index, a listing of the folder and what is known of each file; only files that
are new or changed are opened, and of those only the metadata.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sda_daemon.errors import ModelFileError
from sda_daemon.library.entry import ModelEntry, differs, is_bare_model_name
from sda_daemon.library.header import ModelHeader, read_model_header
from sda_daemon.library.scan import Known
from sda_daemon.models.metadata import _sanitize_filename
from sda_daemon.signature import FileSignature


class FindingKind(StrEnum):
    """What can be wrong between index and folder."""

    MISSING = "missing"
    """The entry's file is gone: the entry is removed."""
    OUTSIDE = "outside"
    """The entry points out of the folder: the entry is removed, what it points to is not touched."""
    SHARED = "shared"
    """Two entries name one file: the one that the file's own id contradicts is removed."""
    ORPHAN = "orphan"
    """A model file without an entry: adopted."""
    COPY = "copy"
    """A model file without an entry whose id another file has: adopted under an id of its own."""
    MOVED = "moved"
    """The entry's file was renamed: the entry follows it."""
    CHANGED = "changed"
    """The file says something else than its entry: the entry is refreshed."""
    INVALID = "invalid"
    """A `.sda` file that is no readable model: left alone, reported once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement, why it is one, and what the index should say instead.

    `old` is the entry to take out, `new` the one to put in; either may be None.
    """

    kind: FindingKind
    file: str
    reason: str
    old: ModelEntry | None = None
    new: ModelEntry | None = None


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair would do. Nothing has been changed by making it."""

    findings: tuple[Finding, ...] = ()
    known: Mapping[str, Known] = field(default_factory=dict)
    """What is known of every file now, for the next plan."""
    entries: int = 0
    """How many entries the index has."""

    @property
    def removed(self) -> int:
        """Number of entries that a repair would take out of the index."""
        gone = (FindingKind.MISSING, FindingKind.OUTSIDE, FindingKind.SHARED, FindingKind.MOVED)
        return sum(finding.kind in gone for finding in self.findings)

    @property
    def added(self) -> int:
        """Number of files that a repair would adopt."""
        new = (FindingKind.ORPHAN, FindingKind.COPY, FindingKind.MOVED)
        return sum(finding.kind in new for finding in self.findings)

    @property
    def changes_index(self) -> bool:
        """Whether applying the plan writes the index."""
        return any(finding.old or finding.new for finding in self.findings)

    def of(self, kind: FindingKind) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind is kind]


def plan_repair(
    folder: Path,
    entries: Mapping[str, ModelEntry],
    files: Mapping[str, FileSignature],
    known: Mapping[str, Known],
    read_header: Callable[[Path], ModelHeader] = read_model_header,
) -> RepairPlan:
    """Compare the index with the folder.

    Args:
        folder: the models folder.
        entries: the index, by id.
        files: the `.sda` files of the folder, by name.
        known: what earlier plans learned; files with the same signature are not opened again.
        read_header: reads a file's metadata.

    """
    return _Planner(folder, entries, files, known, read_header).plan()


class _Planner:
    def __init__(
        self,
        folder: Path,
        entries: Mapping[str, ModelEntry],
        files: Mapping[str, FileSignature],
        known: Mapping[str, Known],
        read_header: Callable[[Path], ModelHeader],
    ) -> None:
        self.folder = folder
        self.entries = entries
        self.files = files
        self.known = known
        self.read_header = read_header
        self.findings: list[Finding] = []
        self.learned: dict[str, Known] = {}
        self.headers: dict[str, ModelHeader] = {}

    def plan(self) -> RepairPlan:
        owner_of: dict[str, ModelEntry] = {}
        missing: dict[str, ModelEntry] = {}
        for entry in self.entries.values():
            name = entry.file_path
            if not is_bare_model_name(name):
                self._add(FindingKind.OUTSIDE, name, "file_path must be the bare name of a .sda file", old=entry)
            elif name not in self.files:
                missing[entry.model_id] = entry
            elif name in owner_of:
                self._settle_shared(owner_of, entry)
            else:
                owner_of[name] = entry
        for name, entry in owner_of.items():
            self._check_owned(name, entry)
        taken = {entry.model_id for entry in owner_of.values()}
        for name in sorted(self.files.keys() - owner_of.keys(), key=self._originality):
            self._adopt(name, taken, missing)
        for entry in missing.values():
            link = (self.folder / entry.file_path).is_symlink()
            reason = "the file is a symbolic link, which is never followed" if link else "its file is gone"
            self._add(FindingKind.OUTSIDE if link else FindingKind.MISSING, entry.file_path, reason, old=entry)
        return RepairPlan(tuple(self.findings), self.learned, len(self.entries))

    def _add(
        self, kind: FindingKind, file: str, reason: str, old: ModelEntry | None = None, new: ModelEntry | None = None
    ) -> None:
        self.findings.append(Finding(kind, file, reason, old, new))

    def _settle_shared(self, owner_of: dict[str, ModelEntry], entry: ModelEntry) -> None:
        name = entry.file_path
        header = self._header(name)
        first = owner_of[name]
        if header is not None and header.metadata.model_id == entry.model_id:
            owner_of[name], loser = entry, first
        else:
            loser = entry
        self._add(FindingKind.SHARED, name, f"entry {owner_of[name].model_id} has the same file", old=loser)

    def _check_owned(self, name: str, entry: ModelEntry) -> None:
        signature = self.files[name]
        known = self.known.get(name)
        if known is not None and known.signature == signature and entry.file_size_bytes == signature.size_bytes:
            self.learned[name] = known
            return
        if known is None and entry.file_size_bytes == signature.size_bytes:
            self.learned[name] = Known(signature)  # first sight of a file that its entry fits: trusted
            return
        header = self._header(name)
        if header is None:
            return
        fresh = ModelEntry.from_metadata(header.metadata, name, header.size_bytes)
        fresh.model_id = entry.model_id
        if differs(entry, fresh.to_dict()):
            self._add(FindingKind.CHANGED, name, "the file has changed", old=entry, new=fresh)

    def _originality(self, name: str) -> tuple[bool, int, int, str]:
        """Sort key that puts an original before its copies: named after its model, then older, then shorter."""
        header = self._header(name)
        stem = "" if header is None else _sanitize_filename(header.metadata.name)
        return not (stem and name.startswith(stem)), self.files[name].mtime_ns, len(name), name

    def _adopt(self, name: str, taken: set[str], missing: dict[str, ModelEntry]) -> None:
        header = self._header(name)
        if header is None:
            return
        fresh = ModelEntry.from_metadata(header.metadata, name, header.size_bytes)
        if not fresh.model_id:
            fresh.model_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"sda-daemon:file:{name}"))
        if fresh.model_id in taken:
            original = fresh.model_id
            fresh.model_id = copy_id(original, name)
            reason = f"a copy of model {original}"
            old = missing.pop(fresh.model_id, None)
            self._add(FindingKind.COPY, name, reason, old=old, new=fresh)
        elif fresh.model_id in missing:
            old = missing.pop(fresh.model_id)
            self._add(FindingKind.MOVED, name, f"renamed from {old.file_path}", old=old, new=fresh)
        else:
            self._add(FindingKind.ORPHAN, name, "it has no entry", new=fresh)
        taken.add(fresh.model_id)

    def _header(self, name: str) -> ModelHeader | None:
        """Read a file's metadata, once; None (and a finding the first time) if it is no model."""
        if name in self.headers:
            return self.headers[name]
        known = self.known.get(name)
        if known is not None and known.reason and known.signature == self.files[name]:
            self.learned[name] = known
            return None
        try:
            header = self.read_header(self.folder / name)
        except (ModelFileError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                self.learned[name] = Known(self.files[name], str(error))
                self._add(FindingKind.INVALID, name, str(error))
            return None
        self.headers[name] = header
        self.learned[name] = Known(FileSignature(header.size_bytes, header.mtime_ns, header.inode))
        return header


def copy_id(original_id: str, name: str) -> str:
    """Return the id of a copied file: the same each time the index is rebuilt."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sda-daemon:copy:{original_id}:{name}"))
