"""Opens torch's zip files without letting them exhaust memory: all bounds are checked before any list is built."""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO

MAX_ENTRIES = 100_000
"""Parts of one file; real ones have about a hundred."""
_MAX_DIRECTORY_BYTES = 16 * 2**20
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LONGEST_COMMENT = 0xFFFF


class OversizedArchiveError(ValueError):
    """The archive promises more than it holds, or has more parts than any honest one."""


def read_pickle_entry(file: BinaryIO, size_bytes: int, max_pickle_bytes: int) -> tuple[bytes | None, frozenset[str]]:
    """Return the content of `data.pkl` (None where there is none) and the names of all parts.

    Names are without the archive's own folder.

    Args:
        file: the zip file, seekable.
        size_bytes: its size.
        max_pickle_bytes: largest `data.pkl` that is read.

    Raises:
        OversizedArchiveError: see there.
        zipfile.BadZipFile: truncated or damaged, or no zip file.
        OSError: it cannot be read.
    """
    check_directory(file, size_bytes)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        stored = 0
        by_name: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise OversizedArchiveError(f"it has compressed parts ({entry.filename[:80]}), torch never writes such")
            stored += entry.file_size
            name = entry.filename.partition("/")[2]
            if name in by_name:
                raise zipfile.BadZipFile(f"it has two parts called {name[:80]!r}")
            by_name[name] = entry
        if stored > size_bytes:
            raise OversizedArchiveError(f"it claims {stored} bytes in a file of {size_bytes}")
        pickled = by_name.get("data.pkl")
        if pickled is None:
            return None, frozenset(by_name)
        if pickled.file_size > max_pickle_bytes:
            raise OversizedArchiveError(f"it has {pickled.file_size} bytes beside its tensors")
        return archive.read(pickled), frozenset(by_name)


def check_directory(file: BinaryIO, size_bytes: int) -> None:
    """Check number of parts and size of the zip's directory, which `zipfile` would read in whole.

    Raises:
        OversizedArchiveError: too large.
        zipfile.BadZipFile: it has no directory: truncated, or no zip file.
    """
    at, record = _find_end(file, size_bytes)
    _, _, _, _, count, directory_bytes, _, _ = _END.unpack(record)
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0:
        count, directory_bytes = _large_directory(file, locator_at) or (count, directory_bytes)
    if count > MAX_ENTRIES or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise OversizedArchiveError(f"it has {count} parts in a list of {directory_bytes} bytes, too many to be true")


def _find_end(file: BinaryIO, size_bytes: int) -> tuple[int, bytes]:
    """Return place and content of the end record: the last thing in the file but for a comment."""
    for tail_bytes in (_END.size, _END.size + _LONGEST_COMMENT):
        begin = max(0, size_bytes - tail_bytes)
        file.seek(begin)
        tail = file.read(tail_bytes)
        at = tail.rfind(b"PK\x05\x06")
        if 0 <= at <= len(tail) - _END.size:
            return begin + at, tail[at : at + _END.size]
    raise zipfile.BadZipFile("it has no directory at its end")


def _large_directory(file: BinaryIO, locator_at: int) -> tuple[int, int] | None:
    """Count and size as the 64-bit record says, None where there is no such record."""
    file.seek(locator_at)
    locator = file.read(_END64_LOCATOR.size)
    if not locator.startswith(b"PK\x06\x07"):
        return None
    file.seek(max(0, locator_at - _END64.size))  # where zipfile looks for it
    record = file.read(_END64.size)
    if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
        return None
    values = _END64.unpack(record)
    return values[7], values[8]
