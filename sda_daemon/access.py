"""Who may read and write a file: mode and group, as far as the folder that it is in is shared.

A library may belong to several people. What one of them writes must be there for the others, whatever the umask says,
and whatever a program does that knows nothing of them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Access:
    """Mode and group of a file."""

    mode: int
    gid: int

    @classmethod
    def of(cls, status: os.stat_result) -> Access:
        """Take them from a stat result."""
        return cls(stat.S_IMODE(status.st_mode), status.st_gid)


def usual_access(folder: Path, mode: int | None = None) -> Access:
    """Return mode and group of a new file in a folder: by the umask, for the folder's group.

    Where that group may write into the folder, it may also read and write the file: several people share it.

    Args:
        folder: where the file is.
        mode: what the file was created with; without it, what the umask gives.

    Raises:
        OSError: the folder cannot be looked at.
    """
    status = folder.stat()
    shared = stat.S_IRGRP | stat.S_IWGRP if status.st_mode & stat.S_IWGRP else 0
    return Access((0o666 & ~_umask() if mode is None else mode) | shared, status.st_gid)


def _umask() -> int:
    """Return this process's umask: without setting another for a moment, which other threads would notice."""
    try:
        status = Path("/proc/self/status").read_bytes()
        return int(next(line for line in status.splitlines() if line.startswith(b"Umask:")).split()[1], 8)
    except (OSError, StopIteration, ValueError):
        mask = os.umask(0o022)
        os.umask(mask)
        return mask


def give_access(descriptor: int, access: Access) -> None:
    """Give a file another mode and group, as far as this user may."""
    status = os.fstat(descriptor)
    if status.st_gid != access.gid:
        with contextlib.suppress(OSError):
            os.fchown(descriptor, -1, access.gid)
    if stat.S_IMODE(status.st_mode) != access.mode:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, access.mode)


def take_access(path: Path, place: Path) -> None:
    """Prepare a finished file for a place: with the access of what it replaces there, else what is usual in the folder.

    Raises:
        OSError: one of them cannot be looked at.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        place_access(descriptor, place, None)
    finally:
        os.close(descriptor)


def place_access(descriptor: int, place: Path, wanted: Access | None) -> None:
    """Give a new file the permissions, and if possible the owner, of the file whose place it takes.

    Without this, one repair by root would lock the user's own programs out of their index.
    """
    new = os.fstat(descriptor)
    try:
        old = place.stat()
    except FileNotFoundError:
        give_access(descriptor, wanted or usual_access(place.parent, stat.S_IMODE(new.st_mode)))
        return
    if old.st_uid != new.st_uid:
        with contextlib.suppress(OSError):
            os.fchown(descriptor, old.st_uid, -1)
    give_access(descriptor, wanted or Access.of(old))


def make_shared_folder(folder: Path) -> None:
    """Make a folder that those can use who can use the one that it is in; one that is there is mended if need be.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(exist_ok=True)
    outer, inner = folder.parent.stat(), folder.stat()
    if inner.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        return  # closed to its own owner, so on purpose
    wanted = stat.S_IMODE(inner.st_mode) | (stat.S_IMODE(outer.st_mode) & ~stat.S_ISUID)
    with contextlib.suppress(PermissionError):
        if inner.st_uid == 0 and inner.st_uid != outer.st_uid:  # the superuser made it in someone's folder
            os.chown(folder, outer.st_uid, -1)
        if inner.st_gid != outer.st_gid:
            os.chown(folder, -1, outer.st_gid)
        if stat.S_IMODE(inner.st_mode) != wanted:
            folder.chmod(wanted)
