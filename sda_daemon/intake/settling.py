"""Decides when a file has settled: nothing has changed for a while, and it is complete. Pure.

A state machine per file; time is an argument (monotonic seconds). The caller reports what it sees
(`observe`), asks which files to look at (`due`) and reports what the look showed (`examined`).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from sda_daemon.signature import FileSignature

WHOLE_SETTLE_S = 0.2
"""Quiet time of a file whose writer is known to be done: only what comes right after it (a sidecar, a
second rename) is waited for. Shorter would be as safe for the file itself, because it is examined."""
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait, in seconds; one for each watched folder."""

    settle_s: float
    incomplete_after_s: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A file is complete and quiet."""

    path: str
    root: str
    signature: FileSignature
    waited_s: float


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A file has been half written for longer than its limit; told once for each content."""

    path: str
    root: str
    signature: FileSignature
    waited_s: float
    reason: str


@dataclass(slots=True)
class _Candidate:
    root: str
    timing: Timing
    signature: FileSignature
    first_seen: float
    last_change: float
    is_whole: bool
    look_at: float
    was_reported: bool = False

    def changed(self, signature: FileSignature, now: float, look_at: float, *, is_whole: bool) -> None:
        """It has another content since `now`: all that was known of the old one is void."""
        self.signature = signature
        self.last_change = now
        self.look_at = look_at
        self.is_whole = is_whole
        self.was_reported = False

    def found_whole(self, look_at: float) -> None:
        """Its writer is known to be done with this content."""
        self.is_whole = True
        self.look_at = look_at

    def begin_look(self) -> None:
        """It is being looked at, and waits for no other look meanwhile."""
        self.look_at = math.inf

    def found_incomplete(self, look_at: float) -> None:
        """A look found it incomplete."""
        self.is_whole = False
        self.look_at = look_at

    def mark_reported(self) -> None:
        """It is told that this content is incomplete."""
        self.was_reported = True


class Settling:
    """All files that are waited for."""

    def __init__(self) -> None:
        self._candidates: dict[str, _Candidate] = {}
        self._agenda: list[tuple[float, str]] = []  # a heap; entries that no longer fit are passed over
        self._unfinished: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._candidates)

    def __contains__(self, path: str) -> bool:
        return path in self._candidates

    def observe(
        self, path: str, root: str, signature: FileSignature, timing: Timing, now: float, *, is_whole: bool = False
    ) -> bool:
        """Take note of a file as it is now; tell whether it is new or has changed."""
        candidate = self._candidates.get(path)
        if candidate is not None and candidate.signature == signature:
            if is_whole and not candidate.is_whole:
                look_at = min(candidate.look_at, now + WHOLE_SETTLE_S)
                candidate.found_whole(look_at)
                heapq.heappush(self._agenda, (look_at, path))
            return False
        look_at = now + (min(WHOLE_SETTLE_S, timing.settle_s) if is_whole else timing.settle_s)
        if candidate is None:
            self._candidates[path] = _Candidate(root, timing, signature, now, now, is_whole, look_at)
        else:
            candidate.changed(signature, now, look_at, is_whole=is_whole)
        self._unfinished.pop(path, None)
        heapq.heappush(self._agenda, (look_at, path))
        return True

    def _next(self) -> tuple[float, str] | None:
        """Return the first entry of the agenda that still holds."""
        while self._agenda:
            at, path = self._agenda[0]
            candidate = self._candidates.get(path)
            if candidate is not None and candidate.look_at == at:
                return at, path
            heapq.heappop(self._agenda)
        return None

    def forget(self, path: str) -> bool:
        """Stop waiting for a file; tell whether it was waited for."""
        self._unfinished.pop(path, None)
        return self._candidates.pop(path, None) is not None

    def due(self, now: float, limit: int = 100) -> list[str]:
        """Return up to `limit` files to look at now; each is returned once, until `examined` or `observe`."""
        ready: list[str] = []
        while len(ready) < limit and (first := self._next()) is not None and first[0] <= now:
            heapq.heappop(self._agenda)
            self._candidates[first[1]].begin_look()
            ready.append(first[1])
        return ready

    def next_look(self) -> float | None:
        """Return when `due` will have something, in monotonic seconds; None if never."""
        first = self._next()
        return None if first is None else first[0]

    def examined(self, path: str, signature: FileSignature, unfinished: str, now: float) -> Settled | Incomplete | None:
        """Take in what a look at a due file showed.

        Args:
            path: the file.
            signature: what it is now.
            unfinished: why it is not complete, or empty if it is.
            now: monotonic seconds.

        Returns:
            Settled or Incomplete where that is certain now, else None: it is looked at again later.
        """
        item = self._candidates[path]
        if signature != item.signature:
            self.observe(path, item.root, signature, item.timing, now)
            return None
        waited_s = now - item.first_seen
        if not unfinished:
            self.forget(path)
            return Settled(path, item.root, signature, waited_s)
        quiet_s = now - item.last_change
        self._unfinished[path] = unfinished
        look_at = now + min(max(item.timing.settle_s, quiet_s / 2, WHOLE_SETTLE_S), _LONGEST_PAUSE_S)
        item.found_incomplete(look_at)
        heapq.heappush(self._agenda, (look_at, path))
        if quiet_s >= item.timing.incomplete_after_s and not item.was_reported:
            item.mark_reported()
            return Incomplete(path, item.root, signature, waited_s, unfinished)
        return None

    def unfinished(self) -> dict[str, str]:
        """Return the files that were found incomplete at the last look, with the reason."""
        return dict(self._unfinished)

    def paths(self) -> list[str]:
        """Return all files that are waited for."""
        return list(self._candidates)

    def reported(self) -> dict[str, str]:
        """Return the files that have been half written for longer than their limit, with the reason."""
        return {path: reason for path, reason in self._unfinished.items() if self._candidates[path].was_reported}

    @property
    def waiting(self) -> int:
        """How many files may still settle soon: those that were not found incomplete."""
        return len(self._candidates) - len(self._unfinished)

    def forget_root(self, root: str) -> None:
        """Stop waiting for all files of a watched folder."""
        for path in [path for path, item in self._candidates.items() if item.root == root]:
            self.forget(path)
