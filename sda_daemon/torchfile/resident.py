"""A pickle as a stream that ends where reading it has taken too much memory."""

from __future__ import annotations

import io
import os
from typing import Any

from sda_daemon.torchfile.faults import Oversized

_STATM = "/proc/self/statm"
_CHUNK_BYTES = 16 * 1024
"""Between two looks; what is in it can take some megabytes at the most."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident_bytes() -> int:
    """Return how much memory this process has; 0 where the system does not tell."""
    try:
        with open(_STATM, "rb") as file:  # noqa: PTH123 - some thousand times for a large file
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


class _Metered(io.RawIOBase):
    def __init__(self, data: bytes, already_bytes: int, most_bytes: int) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._already = already_bytes
        self._most = most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if resident_bytes() - self._already > self._most:
            raise Oversized(f"its values take more than {self._most / 1e6:.0f} MB, the most for a file of its size")
        count = min(len(buffer), len(self._data) - self._at)
        buffer[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count


def metered(data: bytes, already_bytes: int, most_bytes: int) -> io.BufferedReader:
    """Return a stream of these bytes, which raises `Oversized` where the process has so many more than it had already.

    Args:
        data: what is read.
        already_bytes: what the process had before.
        most_bytes: what it may have beside that.
    """
    return io.BufferedReader(_Metered(data, already_bytes, most_bytes), _CHUNK_BYTES)
