"""Folders that are the daemon's own: nothing in them is ever taken for a checkpoint, whatever leads there.

A folder is known by what it is (device and inode), not by how it is written: links, bind mounts and other spellings
lead to the same one. Folders come and go (a disk is mounted, the first checkpoint is moved away), so each question is
answered by a look at the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

Identity = tuple[int, int]


def identity_of(folder: str) -> Identity | None:
    """Return device and inode of what a path leads to, None if that is nothing."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def is_at_or_below(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or lies in it, by identity; what is not there yet, by its resolved path."""
    wanted, real = identity_of(folder), os.path.realpath(folder)
    return any(
        here == real or (wanted is not None and identity_of(here) == wanted) for here in _upward(os.path.realpath(path))
    )


def _upward(path: str) -> Iterator[str]:
    """Yield a path and those above it."""
    pure = PurePosixPath(path)
    yield str(pure)
    yield from map(str, pure.parents)


class Exclusion:
    """The daemon's own folders, as seen from one watched folder at one moment.

    One that the watched folder itself is or lies in is left out: who watches a folder inside the library, where some
    programs leave their trainings, means it.

    Args:
        root: the watched folder.
        folders: the daemon's own.
    """

    def __init__(self, root: str, folders: Sequence[str]) -> None:
        self._root = root
        wanted = [folder for folder in folders if not is_at_or_below(root, folder)] if folders else []
        self._identities = {identity for folder in wanted if (identity := identity_of(folder)) is not None}
        self._paths = {os.path.realpath(folder) for folder in wanted if identity_of(folder) is None}
        self._is_empty = not wanted

    def has(self, folder: str) -> bool:
        """Tell whether a folder is one of them."""
        if self._is_empty:
            return False
        identity = identity_of(folder)
        if identity is None:  # it is gone: then its path is all that there is to go by
            return bool(self._paths) and os.path.realpath(folder) in self._paths
        return identity in self._identities

    def holds(self, folder: str) -> bool:
        """Tell whether a folder below the watched one, or one between the two, is one of them."""
        return not self._is_empty and any(map(self.has, _below(self._root, folder)))

    def holds_target(self, link: str) -> bool:
        """Tell whether a symbolic link leads into one of them."""
        return not self._is_empty and any(map(self.has, _upward(os.path.dirname(os.path.realpath(link)))))  # noqa: PTH120


def _below(root: str, folder: str) -> Iterable[str]:
    """Return the folders from one below the root down to the given one."""
    here = root.rstrip("/")
    if not folder.startswith(here + "/"):
        return []
    found = []
    for name in folder[len(here) + 1 :].split("/"):
        here = f"{here}/{name}"
        found.append(here)
    return found
