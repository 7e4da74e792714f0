"""What can be wrong between index and folder, and the plan that mends it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sda_daemon.library.content import Fields, ForeignEntry
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.scan import Known

MISSING_HINT = "mount it or put it back; if its models were deleted on purpose, run: sda-daemon models repair"
PRUNE_HINT = "is the folder mounted? If the files are really gone, run: sda-daemon models repair"
MASS_REMOVAL_COUNT = 3
MASS_REMOVAL_SHARE = 0.5
"""More than this share of the entries gone at once, and at least so many, is rather an unmounted folder."""


class FindingKind(StrEnum):
    """What can be wrong between index and folder."""

    MISSING = "missing"
    """The entry's file is gone: the entry is removed."""
    OUTSIDE = "outside"
    """The entry points out of the folder, or to a link: it is not followed. Only a person has it removed."""
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
    REPLACED = "replaced"
    """The file holds another model than its entry says: the entry gives way to that model's."""
    INVALID = "invalid"
    """A model file that cannot be read as one: left alone, as is its entry if it has one; reported once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement, why it is one, and what the index should say instead.

    `old` is the entry to take out, `new` the one to put in; either may be None. An entry that points out of the folder
    is in `foreign`. `fields` is what is known of the new entry beyond its 16 fields, `noted` what its entry had there
    before a crash.
    """

    kind: FindingKind
    file: str
    reason: str
    old: ModelEntry | None = None
    new: ModelEntry | None = None
    foreign: ForeignEntry | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    noted: Fields = ()

    @property
    def old_id(self) -> str:
        """What the entry stands under that leaves the index or is changed, empty if there is none."""
        if self.foreign is not None:
            return self.foreign.key
        return self.old.model_id if self.old is not None else ""

    @property
    def removes(self) -> bool:
        """Whether an entry leaves the index (as its old self: a renamed file's is removed and added)."""
        return bool(self.old_id) and self.kind is not FindingKind.CHANGED

    @property
    def removes_id(self) -> bool:
        """Whether the index has nothing of this id afterwards."""
        return self.removes and (self.new is None or self.new.model_id != self.old_id)

    @property
    def adds(self) -> bool:
        """Whether a file is adopted."""
        return self.new is not None and self.kind is not FindingKind.CHANGED


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair would do. Nothing has been changed by making it."""

    findings: tuple[Finding, ...] = ()
    known: Mapping[str, Known] = field(default_factory=dict)
    """What is known of every file now, for the next plan."""
    before: Mapping[str, Known] = field(default_factory=dict)
    """What was known of them before."""
    entries: int = 0
    """How many entries the index has."""
    foreign: tuple[ForeignEntry, ...] = ()
    """Entries of other programs, which are left as they are."""
    put_back: tuple[str, ...] = ()
    """What another program has left out of the index and is put back with the next change, in words."""

    @property
    def removed(self) -> int:
        """Number of entries that a repair would take out of the index."""
        return sum(finding.removes for finding in self.findings)

    @property
    def added(self) -> int:
        """Number of files that a repair would adopt."""
        return sum(finding.adds for finding in self.findings)

    @property
    def changes_index(self) -> bool:
        """Whether applying the plan writes the index."""
        return bool(self.put_back) or any(finding.old_id or finding.new for finding in self.findings)

    @property
    def removed_ids(self) -> int:
        """Number of ids of which the index would have nothing after a repair."""
        return sum(finding.removes_id for finding in self.findings)

    @property
    def is_mass_removal(self) -> bool:
        """Whether so much would leave the index at once that something else is wrong: a disk that is not mounted, say.

        It makes no difference why each of them would leave.
        """
        return self.removed_ids >= MASS_REMOVAL_COUNT and self.removed_ids > self.entries * MASS_REMOVAL_SHARE

    def of(self, kind: FindingKind) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind is kind]

    def without(self, kinds_or_files: Iterable[FindingKind | str]) -> RepairPlan:
        """Return a copy without the findings of these kinds or about these files; later plans have them.

        Of the files that are passed over is known what was known before.
        """
        left_out = frozenset(str(item) for item in kinds_or_files)
        kept = tuple(f for f in self.findings if f.kind.value not in left_out and f.file not in left_out)
        passed_over = {finding.file for finding in self.findings} - {finding.file for finding in kept}
        known = {file: known for file, known in self.known.items() if file not in passed_over}
        before = {file: self.before[file] for file in passed_over if file in self.before}
        return replace(self, findings=kept, known={**known, **before})

    def without_removals(self) -> RepairPlan:
        """Return a copy after which the index has something of every id that it has now."""
        return self.without(finding.file for finding in self.findings if finding.removes_id)

    def settled(self) -> dict[str, Known]:
        """Return what is known of the files that no finding is about."""
        found = {finding.file for finding in self.findings}
        return {file: known for file, known in self.known.items() if file not in found}
