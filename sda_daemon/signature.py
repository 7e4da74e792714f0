"""What tells one content of a file from another without reading it. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileSignature:
    """Size, modification time and inode of a file."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileSignature:
        """Take the signature from a stat result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)
