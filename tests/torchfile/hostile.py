"""Builds torch files byte by byte: such as `torch.save` never writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

SIDE_PARTS = (("x/version", b"3\n"), ("x/byteorder", b"little"))
"""What torch's own reader wants beside `data.pkl`."""


def text(content: bytes) -> bytes:
    """The opcode of a text."""
    return b"X" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    """The opcode of a number."""
    return b"J" + struct.pack("<i", value)


def items(values: Iterable[bytes], shared: bytes = b"") -> bytes:
    """A pickle of a dict with these values under 0, 1, 2 …; `shared` is put into the memo's first place before."""
    begin = shared + b"q\x000" if shared else b""
    return b"\x80\x02" + begin + b"}(" + b"".join(number(key) + value for key, value in enumerate(values)) + b"u."


def directory_of(parts: Iterable[tuple[str, bytes]], begin: int = 0, **places: int) -> tuple[bytes, bytes]:
    """Return the parts as they stand in a zip file from `begin` on, and the directory of them.

    `places` are other places than the real ones, by the last letters of a part's name.
    """
    stored, directory = bytearray(), bytearray()
    for name, content in parts:
        raw, at = name.encode(), begin + len(stored)
        at = next((place for ending, place in places.items() if name.endswith(ending)), at)
        sizes = struct.pack("<3L", zlib.crc32(content), len(content), len(content))
        stored += struct.pack("<4s5H", b"PK\x03\x04", 20, 0, 0, 0, 0) + sizes + struct.pack("<2H", len(raw), 0)
        stored += raw + content
        large = struct.pack("<HHQ", 1, 8, at)
        directory += struct.pack("<4s6H", b"PK\x01\x02", 20, 20, 0, 0, 0, 0) + sizes
        directory += struct.pack("<5H2L", len(raw), len(large), 0, 0, 0, 0, 0xFFFFFFFF) + raw + large
    return bytes(stored), bytes(directory)


def end_of(count: int, directory_bytes: int, at: int) -> bytes:
    """The last record of a zip file."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, directory_bytes, at, 0)


def large_end_of(count: int, directory_bytes: int, at: int) -> bytes:
    """The 64-bit record that stands before the locator."""
    return struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, directory_bytes, at)


def locator_of(at: int) -> bytes:
    """The record that tells where the 64-bit record is, and the last record, which has no place for its numbers."""
    return struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1) + end_of(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def write_parts(path: Path, parts: Iterable[tuple[str, bytes]], **places: int) -> Path:
    """Write a zip file with these parts."""
    listed = list(parts)
    stored, directory = directory_of(listed, **places)
    path.write_bytes(stored + directory + end_of(len(listed), len(directory), len(stored)))
    return path


def write_pickle(path: Path, data: bytes) -> Path:
    """Write a torch file with this pickle and no tensors."""
    return write_parts(path, [("x/data.pkl", data), *SIDE_PARTS])
