"""Looks at one file: what it is now, and whether its writer is done with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

_ZIP_START = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_BYTES = 20
_MAX_COMMENT = 65_535


def why_unfinished(path: str) -> str:
    """Return why a file is not completely written yet; empty if nothing speaks against it.

    A torch file is a zip, which ends with its central directory: without one it is not complete, however
    quiet. On Linux the kernel also tells whether someone has it open for writing (a read lease, fcntl(2)).

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return "it is empty"
        start = os.pread(descriptor, 4096, 0)
        if start.startswith(_ZIP_START):
            if not _has_directory(descriptor, size):
                return "its end is missing (no zip directory)"
        elif not start.strip(b"\0"):
            return "it begins with zeros, as space that is set aside does"
        if has_writer(descriptor):
            return "a program has it open for writing"
    finally:
        os.close(descriptor)
    return ""


def _has_directory(descriptor: int, size: int) -> bool:
    """Tell whether a zip ends with an end record that fits a central directory in front of it."""
    tail_size = min(size, _END.size + _MAX_COMMENT)
    tail = os.pread(descriptor, tail_size, size - tail_size)
    position = tail.rfind(b"PK\x05\x06")
    if position < 0 or len(tail) - position < _END.size:
        return False
    _, _, _, _, entries, length, offset, comment = _END.unpack_from(tail, position)
    end = size - tail_size + position
    if end + _END.size + comment != size:
        return False
    if 0xFFFFFFFF in (length, offset) or entries == 0xFFFF:
        place = end - _LOCATOR_BYTES - _END64.size
        record = os.pread(descriptor, _END64.size, max(place, 0))
        if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
            return False
        *_, length, offset = _END64.unpack(record)
    if offset + length > end:
        return False
    return length == 0 or os.pread(descriptor, 4, offset) == b"PK\x01\x02"


def has_writer(descriptor: int) -> bool:
    """Tell whether some process has the file open for writing; False where the kernel will not say."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
