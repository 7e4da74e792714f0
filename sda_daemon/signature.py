"""What tells one content of a file from another without reading it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileSignature:
    """Size, modification time and inode of a file; the last two as `signed_64` gives them."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileSignature:
        """Take the signature from a stat result."""
        mtime_ns, inode = status.st_mtime_ns, status.st_ino
        if not (-_LIMIT <= mtime_ns < _LIMIT and inode < _LIMIT):  # hardly ever, and a rescan asks very often
            mtime_ns, inode = signed_64(mtime_ns), signed_64(inode)
        return cls(status.st_size, mtime_ns, inode)


def signed_64(number: int) -> int:
    """Return a number as the ledger can hold it: files may be dated after 2262, and inodes use all of 64 bits."""
    return (number + _LIMIT) % (2 * _LIMIT) - _LIMIT


_LIMIT = 2**63


def signature_at(path: str) -> FileSignature | None:
    """Return the signature of the regular file at a path (links are followed), None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileSignature.of(status) if stat.S_ISREG(status.st_mode) else None
