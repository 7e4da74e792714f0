"""The status line in plain words, as `systemctl status` shows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What there is to say about a daemon at work.

    Attributes:
        watching: folders whose changes are seen.
        missing: configured folders that are not there.
        converting: checkpoints that workers are busy with, or whose models are on their way to disk and index.
        waiting: checkpoints that will be converted soon.
        failed: failed attempts since the start.
        last: the newest model's name, empty for none yet.
        last_age_s: how long ago that was, in seconds.
        library_problem: why the models folder is taken to be lost; empty if it is not.
    """

    watching: int = 0
    missing: tuple[str, ...] = ()
    converting: int = 0
    waiting: int = 0
    failed: int = 0
    last: str = ""
    last_age_s: float = 0.0
    library_problem: str = ""


def describe(progress: Progress) -> str:
    """Return one line such as `watching 3 folders; 2 converting, 14 waiting; last: rain epoch 190, 12 s ago`."""
    parts = [f"conversions wait for the models folder: {progress.library_problem}"] if progress.library_problem else []
    parts.append(f"watching {_count(progress.watching, 'folder')}")
    if progress.missing:
        first, *others = progress.missing
        more = f" and {len(others)} more" if others else ""
        parts.append(f"{first}{more} not there yet")
    if progress.converting or progress.waiting:
        parts.append(f"{progress.converting} converting, {progress.waiting} waiting")
    else:
        parts.append("nothing to do")
    if progress.last:
        parts.append(f"last: {progress.last}, {age(progress.last_age_s)} ago")
    if progress.failed:
        parts.append(f"{_count(progress.failed, 'failed attempt')} since the start")
    return "; ".join(parts)


def age(duration_s: float) -> str:
    """Return a duration in its largest whole unit: `12 s`, `3 min`, `5 h`, `2 days`.

    Coarse on purpose: a line that is sent when it changes is sent ever more seldom.
    """
    seconds = max(0, int(duration_s))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        return f"{seconds // 3600} h"
    return _count(seconds // 86_400, "day")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
