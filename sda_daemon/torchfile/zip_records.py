"""The records that tell where things are in a zip file: how they begin, and how the last of them are found.

What they say is judged by who asks: what may still be written, and what is to be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

PART_START = b"PK\x03\x04"
"""With which each part begins, and so the whole file."""
LISTED_START = b"PK\x01\x02"
"""With which the directory begins, and what it says of each part."""
END_START = b"PK\x05\x06"
"""With which the end record begins: all that there is of an archive without parts."""
SPLIT_START = b"PK\x07\x08"
"""With which the pieces of a split archive begin."""
_LARGE_END_START = b"PK\x06\x06"
_LOCATOR_START = b"PK\x06\x07"
_END = struct.Struct("<4s4H2LH")
_LARGE_END = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LONGEST_COMMENT = 0xFFFF
_BEYOND_16_BITS = 0xFFFF
BEYOND_32_BITS = 0xFFFFFFFF
"""Stands in a record for a number that does not fit, which another record has."""

ReadAt = Callable[[int, int], bytes]
"""Returns the bytes of a file from a place on, as many as are asked for, or as there are."""


class Directory(NamedTuple):
    """How many parts a zip's directory lists, its size in bytes, and where it begins."""

    parts: int
    size_bytes: int
    offset: int


class EndRecord(NamedTuple):
    """What a zip ends with: place and length in bytes, comment included, and what it says of the directory."""

    at: int
    size_bytes: int
    directory: Directory

    @property
    def large_at(self) -> int:
        """Where the record with numbers of 64 bits is, if there is one; below 0 if there is no room for it."""
        return self.at - _LOCATOR.size - _LARGE_END.size

    @property
    def is_too_small(self) -> bool:
        """Whether a number did not fit into it, and stands in the record with numbers of 64 bits."""
        parts, size_bytes, offset = self.directory
        return BEYOND_32_BITS in (size_bytes, offset) or parts == _BEYOND_16_BITS


def find_end(read: ReadAt, size_bytes: int) -> EndRecord | None:
    """Return the end record: the last thing in the file but for a comment; None where there is none.

    Args:
        read: reads from the file.
        size_bytes: of the file.

    Raises:
        OSError: it cannot be read.
    """
    for tail_bytes in (_END.size, _END.size + _LONGEST_COMMENT):
        begin = max(0, size_bytes - tail_bytes)
        tail = read(begin, tail_bytes)
        at = tail.rfind(END_START)
        if 0 <= at <= len(tail) - _END.size:
            _, _, _, _, parts, directory_bytes, offset, comment_bytes = _END.unpack_from(tail, at)
            return EndRecord(begin + at, _END.size + comment_bytes, Directory(parts, directory_bytes, offset))
    return None


def read_locator(read: ReadAt, end: EndRecord) -> int | None:
    """Return where the record with numbers of 64 bits is, as the locator in front of the end record says.

    None where there is no locator.

    Raises:
        OSError: it cannot be read.
    """
    at = end.at - _LOCATOR.size
    locator = read(at, _LOCATOR.size) if at >= 0 else b""
    return int(_LOCATOR.unpack(locator)[2]) if locator.startswith(_LOCATOR_START) else None


def read_large_directory(read: ReadAt, end: EndRecord) -> Directory | None:
    """Return what the record with numbers of 64 bits says, None where there is none in front of the locator.

    Raises:
        OSError: it cannot be read.
    """
    record = read(end.large_at, _LARGE_END.size) if end.large_at >= 0 else b""
    if len(record) < _LARGE_END.size or not record.startswith(_LARGE_END_START):
        return None
    return Directory(*_LARGE_END.unpack(record)[7:])
