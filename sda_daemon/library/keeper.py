"""Keeps the index true while others change the models folder, and knows when not to believe its eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sda_daemon import events
from sda_daemon.errors import LibraryError
from sda_daemon.files import sweep_work_folders
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.findings import MISSING_HINT, PRUNE_HINT
from sda_daemon.library.repair import FindingKind, RepairPlan
from sda_daemon.library.scan import has_models
from sda_daemon.os_errors import with_sandbox_hint
from sda_daemon.watching.hints import Hint
from sda_daemon.watching.reach import folder_identity
from sda_daemon.watching.watcher import RootWatch

REPAIR_DELAY_S = 1.0
"""Outside changes of the models folder are given this long to be finished before the index is repaired."""
GRACE_S = 3.0
"""A missing file is given this long to come back before its entry goes: it may just be being replaced."""
_POLL_INTERVAL_S = 5.0


class Keeper:
    """Looks after one models folder.

    Args:
        library: the library; the daemon's own changes go through it too.
        enqueue: takes hints of the watcher; called from other threads.
        interval_s: how often the folder is looked at without any sign of a change, in seconds.

    Attributes:
        looks: how often the folder and the index were made to agree.
        problem: why the folder is taken to be lost at the moment; nothing must be published then. Else empty.
    """

    def __init__(self, library: ModelLibrary, enqueue: Callable[[Hint], None], interval_s: float) -> None:
        self.library = library
        self._interval_s = interval_s
        self._watch = RootWatch(str(library.models_dir), "auto", _POLL_INTERVAL_S, enqueue, is_library=True)
        self._repair_at = 0.0
        self.looks = 0
        self.problem = ""
        self._refused = False
        self._identity = folder_identity(str(library.models_dir))
        self._entries = library.count()
        self._missing_since: dict[str, float] = {}

    def configure(self, interval_s: float) -> None:
        """Look at the folder at another interval, in seconds, from the next look on."""
        self._interval_s = interval_s

    def start(self, now: float, *, live: bool) -> None:
        """Sweep up, repair what has changed while no one looked, and (if `live`) begin to watch."""
        removed = sweep_work_folders(self.library.models_dir)
        if removed:
            events.LIBRARY_SWEPT(removed=removed)
        if live:
            self._watch.start()
        self.repair(now)

    def stop(self) -> None:
        """Stop watching."""
        self._watch.stop()

    def touched(self, now: float) -> None:
        """Take note that something has changed in the folder."""
        self._repair_at = min(self._repair_at, now + REPAIR_DELAY_S)

    def next_moment(self) -> float:
        """Return when `poll` has something to do, in monotonic seconds."""
        return self._repair_at

    def poll(self, now: float) -> None:
        """Repair if it is time."""
        if self._repair_at <= now:
            self.repair(now)

    def supervise(self, now: float) -> bool:
        """Notice that the folder is gone, back or another one; watch again if the watch has been lost.

        Returns:
            Whether another folder with a library in it has taken its place, so that everything must begin anew.
        """
        identity = folder_identity(str(self.models_dir))
        if identity != self._identity:
            if identity is None or (self._entries and not has_models(self.models_dir)):
                self._lose("it is gone" if identity is None else "an empty folder has its name")
                return False
            return True
        if self.is_lost:
            self.problem = ""
            events.LIBRARY_FOLDER_BACK(path=str(self.models_dir))
            self.touched(now)
        if self._watch.why_lost():
            self._watch.stop()
            if self._watch.start():
                self.touched(now)
        return False

    @property
    def is_lost(self) -> bool:
        """Whether the folder is gone at the moment, or a bare one has its name."""
        return bool(self.problem)

    def count(self) -> int:
        """Return how many models there are; of a folder that has just been lost, how many there were."""
        if folder_identity(str(self.models_dir)) == self._identity:
            self._entries = self.library.count()
        return self._entries

    @property
    def foreign_entries(self) -> int:
        """How many entries of the index belong to other programs, and stay as they are."""
        return len(self.library.foreign())

    def _lose(self, reason: str) -> None:
        if not self.is_lost:
            self.problem = reason
            events.LIBRARY_FOLDER_LOST(path=str(self.models_dir), reason=reason, hint=MISSING_HINT)

    def repair(self, now: float) -> None:
        """Make the index agree with the folder, unless so much is missing that something else is wrong."""
        self._repair_at = now + self._interval_s
        if folder_identity(str(self.models_dir)) != self._identity:
            return  # `supervise` will see to it
        try:
            plan = self.library.plan_repair().without([FindingKind.OUTSIDE])  # those are for a person to remove
            if self._is_mass_removal(plan):
                with self.library.transaction():
                    pass  # what another program has left out is put back all the same
                return
            plan = self._without_recent(plan, now)
            self.library.apply_repair(plan)
            self._entries = self.library.count()
            self.looks += 1
        except (LibraryError, OSError) as error:
            events.LIBRARY_REPAIR_FAILED(reason=with_sandbox_hint(error))

    def _without_recent(self, plan: RepairPlan, now: float) -> RepairPlan:
        """Leave out entries whose file has only just gone missing, and look again when their grace is over."""
        gone = {finding.file for finding in plan.of(FindingKind.MISSING)}
        self._missing_since = {file: self._missing_since.get(file, now) for file in gone}
        recent = {file for file, since in self._missing_since.items() if now < since + GRACE_S}
        if recent:
            self._repair_at = min(self._missing_since[file] for file in recent) + GRACE_S
        return plan.without(recent)

    def _is_mass_removal(self, plan: RepairPlan) -> bool:
        is_refused = plan.is_mass_removal
        if is_refused and not self._refused:
            events.LIBRARY_PRUNE_REFUSED(missing=plan.removed_ids, known=plan.entries, hint=PRUNE_HINT)
        self._refused = is_refused
        return is_refused

    @property
    def models_dir(self) -> Path:
        """The folder."""
        return self.library.models_dir
