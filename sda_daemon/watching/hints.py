"""What the edges tell the daemon's loop: hints from the watchers. Pure and frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileSeen:
    """Something happened to a file.

    `is_whole` is True where the event says that its writer is done: it was closed after writing or moved in.
    """

    root: str
    path: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class FolderSeen:
    """A folder appeared; what lies in it may have come before its watch did."""

    root: str
    path: str


@dataclass(frozen=True, slots=True)
class RescanNeeded:
    """Events of a root may have been lost."""

    root: str
    reason: str


@dataclass(frozen=True, slots=True)
class LibraryTouched:
    """Something happened in the models folder."""


Hint = FileSeen | FolderSeen | RescanNeeded | LibraryTouched
