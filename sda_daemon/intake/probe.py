"""Looks at one file: what it is now, and whether its writer is done with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from sda_daemon.torchfile.zip_records import LISTED_START, PART_START, find_end, read_large_directory


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
        if start.startswith(PART_START):
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

    def read(at: int, count: int) -> bytes:
        return os.pread(descriptor, count, at)

    end = find_end(read, size)
    if end is None or end.at + end.size_bytes != size:
        return False
    directory = read_large_directory(read, end) if end.is_too_small else end.directory
    if directory is None or directory.offset + directory.size_bytes > end.at:
        return False
    return directory.size_bytes == 0 or read(directory.offset, len(LISTED_START)) == LISTED_START


def has_writer(descriptor: int) -> bool:
    """Tell whether some process has the file open for writing; False where the kernel will not say."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
