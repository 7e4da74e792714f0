"""What there is to see of a session at one moment: taken once a turn, for `status` and for the service manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sda_daemon.conversion.queue import ConversionQueue
from sda_daemon.intake.intake import Intake
from sda_daemon.library.keeper import Keeper
from sda_daemon.service.status import Progress
from sda_daemon.state.missing_library import filled

MAX_LISTED = 200
"""Longest list of paths that is published; the counts are always whole."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the daemon has done since its start.

    Attributes:
        succeeded: models that were added or changed.
        failed: attempts that failed.
        newest: name of the newest model; empty for none yet.
        newest_at: when that came, in monotonic seconds.
    """

    succeeded: int = 0
    failed: int = 0
    newest: str = ""
    newest_at: float = 0.0


@dataclass(frozen=True, slots=True)
class WatchState:
    """How a folder is watched: `observer` is empty for not at all, `problem` says why not as it should be."""

    path: str
    observer: str
    problem: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session at one moment.

    Attributes:
        models_dir: the library.
        models, foreign_entries: how many there are in it.
        library_problem: why the models folder is taken to be lost; empty if it is not.
        watches: the watched folders.
        settling: how many files are waited for that are whole as far as is known, and the first paths.
        soon: how many may settle soon.
        waiting: how many checkpoints wait for a worker, and the first paths.
        converting: paths of those that are being converted.
        incomplete: files that have been half written for too long, with the reason; the first ones.
        incomplete_count: how many there are.
    """

    models_dir: Path
    models: int
    foreign_entries: int
    library_problem: str
    watches: tuple[WatchState, ...]
    settling: tuple[int, tuple[str, ...]]
    soon: int
    waiting: tuple[int, tuple[str, ...]]
    converting: tuple[str, ...]
    incomplete: Mapping[str, str]
    incomplete_count: int

    def document(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is published for `sda-daemon status`.

        Args:
            identity: which process this is: `pid`, `started_at`, `version`, `config`, …
        """
        return {
            **({} if self.library_problem else filled(self.models_dir, self.models)),
            "daemon": dict(identity),
            "library": {
                "models": self.models,
                "foreign_entries": self.foreign_entries,
                "problem": self.library_problem,
            },
            "watches": [
                {"path": watch.path, "observer": watch.observer, "problem": watch.problem} for watch in self.watches
            ],
            "settling": _listed(self.settling),
            "waiting": _listed(self.waiting),
            "converting": list(self.converting),
            "incomplete": [{"path": path, "reason": reason} for path, reason in self.incomplete.items()],
            "incomplete_count": self.incomplete_count,
        }

    def progress(self, tally: Tally, now: float) -> Progress:
        """Return what there is to say to the service manager; `now` in monotonic seconds."""
        return Progress(
            watching=sum(bool(watch.observer) for watch in self.watches),
            missing=tuple(watch.path for watch in self.watches if not watch.observer),
            converting=len(self.converting),
            waiting=self.waiting[0] + self.soon,
            failed=tally.failed,
            last=tally.newest,
            last_age_s=now - tally.newest_at,
            library_problem=self.library_problem,
        )


def _listed(counted: tuple[int, tuple[str, ...]]) -> dict[str, Any]:
    count, paths = counted
    return {"count": count, "paths": list(paths)}


def take_snapshot(intake: Intake, queue: ConversionQueue, keeper: Keeper) -> Snapshot:
    """Look at the parts of a session."""
    settling = intake.settling
    unfinished = settling.unfinished()
    reported = settling.reported()
    quiet = (path for path in settling.paths() if path not in unfinished)
    return Snapshot(
        models_dir=keeper.models_dir,
        models=keeper.count(),
        foreign_entries=keeper.foreign_entries,
        library_problem=keeper.problem,
        watches=tuple(WatchState(root.path, root.observer, root.problem) for root in intake.roots.values()),
        settling=(settling.waiting, tuple(islice(quiet, MAX_LISTED))),
        soon=intake.waiting,
        waiting=(queue.waiting, tuple(queue.first_waiting(MAX_LISTED))),
        converting=tuple(sorted(queue.running)),
        incomplete=dict(islice(reported.items(), MAX_LISTED)),
        incomplete_count=len(reported),
    )
