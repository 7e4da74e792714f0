"""Opens torch's zip files without letting them exhaust memory: all bounds are checked before any list is built."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from isal.isal_zlib import crc32

from sda_daemon.torchfile.faults import COPY_AGAIN, Damaged, NotTorch, OtherKind, Oversized, TooLarge
from sda_daemon.torchfile.kinds import kind_of_parts, kind_of_torch_parts
from sda_daemon.torchfile.zip_records import (
    BEYOND_32_BITS,
    LISTED_START,
    PART_START,
    Directory,
    EndRecord,
    ReadAt,
    find_end,
    read_large_directory,
    read_locator,
)

PICKLE_NAME = "data.pkl"
"""The part that holds everything but the tensors' bytes."""
MAX_ENTRIES = 100_000
"""Parts of one file; real ones have about a hundred."""
MAX_DIRECTORY_BYTES = 16 * 2**20
_PART = struct.Struct("<8xHHxxxxLLLHHH8xL")
_LOCAL = struct.Struct("<26xHH")
LOCAL_HEADER_BYTES = _LOCAL.size
_STORED = 0
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_KNOWN_FLAGS = 0x0006 | 0x0008 | 0x0800
"""How hard a compressor tried, sizes behind the content, names in UTF-8."""
_SIZES_BEHIND = 0x0008
_DESCRIPTORS = (12, 16, 20, 24)
"""How long what stands behind a content can be: checksum and sizes, with a signature or without, large or not."""
_ALIGNMENT = 64
_LONGEST_PADDING = _ALIGNMENT + 4
_CHUNK_BYTES = 1 << 20


class Part(NamedTuple):
    """What a zip's directory says of one of its parts; `path` is its name with its folders."""

    path: str
    flags: int
    method: int
    crc: int
    stored_bytes: int
    size_bytes: int
    offset: int

    @property
    def name(self) -> str:
        """The name without the archive's own folder, for messages."""
        return self.path.partition("/")[2][:80] or self.path[:80]


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """The parts of a zip file that torch wrote, checked as a whole: none compressed, none twice, none too large.

    Attributes:
        parts: by their names inside the archive's own folder.
        directory: the zip's own list of all parts as it stands in the file: names, sizes, places and CRC-32s.
        listed: all parts in the order of the directory, also those outside of that folder, which others add.
    """

    parts: dict[str, Part]
    directory: bytes
    listed: tuple[Part, ...] = ()

    def pickle_part(self, max_bytes: int) -> Part:
        """Return `data.pkl`.

        Raises:
            TooLarge: it is larger than that.
        """
        part = self.parts[PICKLE_NAME]
        if part.size_bytes > max_bytes:
            raise TooLarge(f"it has {part.size_bytes} bytes beside its tensors (at most {max_bytes} are read)")
        return part


def open_regular(path: Path, flags: int = 0) -> int:
    """Return a descriptor for reading a file, without waiting for a pipe in its place.

    Args:
        path: the file.
        flags: more for `os.open`, such as `O_NOFOLLOW`.

    Raises:
        NotTorch: it is no regular file.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | flags)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        raise NotTorch("is no regular file") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise NotTorch("is a folder, not a file", "Name a file in it")
        raise NotTorch("is no regular file")
    return descriptor


def read_archive(file: BinaryIO, size_bytes: int, max_directory_bytes: int = MAX_DIRECTORY_BYTES) -> TorchArchive:
    """Read the list of a torch file's parts, and none of them.

    Torch puts all parts into one folder; other programs may pack them again under another one, or none, and add parts
    outside of it.

    Args:
        file: the zip file, seekable.
        size_bytes: its size.
        max_directory_bytes: largest directory that is looked at.

    Raises:
        TooLarge: its directory is larger.
        Oversized: it promises more than it holds, or has too many parts.
        OtherKind: a zip file that is no torch file; or compressed, or encrypted.
        Damaged: truncated, damaged, or made to be read in two ways.
        OSError: it cannot be read.
    """
    count, directory_bytes, offset = check_directory(file, size_bytes)
    file.seek(offset)
    directory = file.read(directory_bytes)
    if directory_bytes > max_directory_bytes:
        raise TooLarge(f"its directory has {directory_bytes} bytes (at most {max_directory_bytes} are read)")
    listed = list(_parts(directory, count))
    folder = _own_folder(listed)
    by_name: dict[str, Part] = {}
    stored = 0
    for part in listed:
        try:
            _check_listed(part, offset)
        except OtherKind as other:  # TorchScript compresses its code
            raise kind_of_torch_parts({part.path[len(folder) :] for part in listed}) or other from None
        stored += part.size_bytes
        if not part.path.startswith(folder):
            continue
        name = part.path[len(folder) :]
        if name in by_name:
            raise Damaged(f"it has two parts called {name[:80]!r}")
        by_name[name] = part
    kind = kind_of_torch_parts(by_name)
    if kind is not None:
        raise kind
    if len({name.casefold() for name in by_name}) != len(by_name):  # torch's reader makes no difference
        raise Damaged("it has parts whose names differ only in upper and lower case")
    if stored > size_bytes:
        raise Oversized(
            f"its parts claim {stored} bytes in a file of {size_bytes}", COPY_AGAIN, "is no sound archive: "
        )
    _check_gaps(file, listed, offset)
    return TorchArchive(by_name, directory, tuple(listed))


def _own_folder(listed: Sequence[Part]) -> str:
    """Return the folder of `data.pkl`, with a slash behind it; where there are several, the one nearest to the top.

    Raises:
        Damaged: two are equally near.
        OtherKind: there is none.
    """
    found = [path[: -len(PICKLE_NAME)] for part in listed if (path := part.path).endswith(PICKLE_NAME)]
    found = sorted(
        (folder for folder in found if not folder or folder[-1] == "/"), key=lambda folder: folder.count("/")
    )
    if not found:
        raise kind_of_parts([part.path for part in listed])
    if len(found) > 1 and found[0].count("/") == found[1].count("/"):
        raise Damaged(f"it has two parts called {PICKLE_NAME!r}")
    return found[0]


def _check_listed(part: Part, directory_offset: int) -> None:
    """Refuse what the directory may not say of a part: that it is encrypted, compressed, or beyond the parts' room."""
    if part.flags & _ENCRYPTED:
        raise OtherKind(
            f"is an encrypted zip ({part.name!r} needs a password)", "Unpack it, and pack it again without a password"
        )
    if part.method != _STORED or part.size_bytes != part.stored_bytes:
        raise OtherKind(
            f"is a compressed zip ({part.name!r} is); torch never writes such",
            "Unpack it and pack it again without compression (zip -0 -r), or take the original",
        )
    if "\0" in part.path:  # many readers end the name there
        raise Damaged(f"its part {part.name!r} has a name that not all programs read alike")
    if part.flags & ~_KNOWN_FLAGS:
        raise Damaged(f"its part {part.name!r} has unknown flags ({part.flags:#06x})")
    if part.offset + LOCAL_HEADER_BYTES + part.stored_bytes > directory_offset:
        raise Damaged(f"its part {part.name!r} is not where it should be")


def _check_gaps(file: BinaryIO, listed: Sequence[Part], directory_offset: int) -> None:
    """Refuse an archive in which something stands before, between or behind its parts: others could read that instead.

    What torch writes ends where the next part begins, but for the padding that aligns that; only where it does not look
    like that the part's own header is asked.

    Raises:
        Damaged: it has a gap, or parts in the place of others.
    """
    at = 0
    places = sorted((part.offset, part) for part in listed)
    for index, (offset, part) in enumerate(places):
        if offset != at:
            raise Damaged(f"it has something else in front of its part {part.name!r}")
        at = places[index + 1][0] if index + 1 < len(places) else directory_offset
        content_at = at - part.stored_bytes
        least = offset + LOCAL_HEADER_BYTES + len(part.path.encode())
        if content_at % _ALIGNMENT or not 0 <= content_at - least < _LONGEST_PADDING:
            file.seek(offset)
            content_at = content_offset(part, file.read(LOCAL_HEADER_BYTES))
            behind = at - content_at - part.stored_bytes
            if behind not in (_DESCRIPTORS if part.flags & _SIZES_BEHIND else (0,)):
                raise Damaged(f"it has something else behind its part {part.name!r}")


def _parts(directory: bytes, count: int) -> Iterator[Part]:
    """Yield what the zip's directory says of each part; `zipfile` does the same, but takes ten times as long."""
    at = 0
    for _ in range(count):
        if directory[at : at + 4] != LISTED_START or len(directory) < at + _PART.size:
            raise Damaged("its directory is damaged")
        values = _PART.unpack_from(directory, at)
        flags, method, crc, stored, size, name_bytes, extra_bytes, comment_bytes, offset = values
        name_at = at + _PART.size
        extra_at = name_at + name_bytes
        if BEYOND_32_BITS in (stored, size, offset):
            extra = directory[extra_at : extra_at + extra_bytes]
            size, stored, offset = _large_numbers(extra, size, stored, offset)
        name = directory[name_at:extra_at].decode("utf-8", "replace")
        yield Part(name, flags, method, crc, stored, size, offset)
        at = extra_at + extra_bytes + comment_bytes
    if at > len(directory):
        raise Damaged("its directory is damaged")


def _large_numbers(extra: bytes, *numbers: int) -> tuple[int, int, int]:
    """Replace numbers that did not fit into 32 bits by those of the zip64 field, which has only them, in order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            large = (
                iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
                if at + 4 + length <= len(extra)
                else iter(())
            )
            try:
                size, stored, offset = (next(large) if n == BEYOND_32_BITS else n for n in numbers)
            except (StopIteration, RuntimeError, ValueError):
                break
            return size, stored, offset
        at += 4 + length
    raise Damaged("its directory is damaged")


def content_offset(part: Part, header: bytes) -> int:
    """Return where a part's content begins, from the bytes at its own place in the file.

    Args:
        part: of the directory.
        header: `LOCAL_HEADER_BYTES` from `part.offset` on.

    Raises:
        Damaged: there is no such part.
    """
    if len(header) < LOCAL_HEADER_BYTES or not header.startswith(PART_START):
        raise Damaged(f"its part {part.name!r} is not where it should be")
    name_bytes, extra_bytes = _LOCAL.unpack(header)
    return int(part.offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes)


def read_part(file: BinaryIO, part: Part) -> bytes:
    """Return a part's content; its checksum is compared.

    Raises:
        Damaged: it is truncated or damaged.
        OSError: it cannot be read.
    """
    file.seek(part.offset)
    file.seek(content_offset(part, file.read(LOCAL_HEADER_BYTES)))
    content = file.read(part.size_bytes)
    check_part(part, content)
    return content


def read_chunks(file: BinaryIO, part: Part) -> Iterator[bytes]:
    """Yield a part's content in pieces; its checksum is compared at the end.

    Raises:
        Damaged: it is truncated or damaged.
        OSError: it cannot be read.
    """
    file.seek(part.offset)
    file.seek(content_offset(part, file.read(LOCAL_HEADER_BYTES)))
    left, checksum = part.size_bytes, 0
    while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
        left -= len(chunk)
        checksum = crc32(chunk, checksum)
        yield chunk
    if left or (part.crc and checksum != part.crc):
        raise Damaged(f"its part {part.name!r} is damaged")


def check_part(part: Part, content: bytes | memoryview) -> None:
    """Compare a part's content with size and CRC-32 of the directory.

    A zero stands for no checksum: torch can be told to save the time (`set_crc32_options`).

    Raises:
        Damaged: it is not what was written.
    """
    if len(content) != part.size_bytes or (part.crc and crc32(content) != part.crc):
        raise Damaged(f"its part {part.name!r} is damaged")


def check_directory(file: BinaryIO, size_bytes: int) -> Directory:
    """Return number of parts, size and place of the zip's directory, if they are bearable.

    Raises:
        Oversized: too large.
        Damaged: it has no directory: truncated, or no zip file.
    """

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        return file.read(count)

    end = find_end(read, size_bytes)
    if end is None:
        raise Damaged("it has no directory at its end")
    large = _large_directory(read, end)
    directory, behind = (end.directory, end.at) if large is None else (large, end.large_at)
    if directory.parts > MAX_ENTRIES or directory.size_bytes > MAX_DIRECTORY_BYTES:
        raise Oversized(
            f"it has {directory.parts} parts in a list of {directory.size_bytes} bytes "
            f"(at most {MAX_ENTRIES} parts in {MAX_DIRECTORY_BYTES} bytes are read)",
            "Save it again with fewer tensors",
        )
    if directory.offset + directory.size_bytes != behind:
        raise Damaged("its directory is not where it should be")
    return directory


def _large_directory(read: ReadAt, end: EndRecord) -> Directory | None:
    """Return the directory as the 64-bit record says, None where nothing leads to such a record."""
    record_at = read_locator(read, end)
    if record_at is None:
        return None
    if record_at != end.large_at:  # there zipfile looks for it; torch's reader believes the locator
        raise Damaged("its directory is not where it should be")
    directory = read_large_directory(read, end)
    if directory is None:
        raise Damaged("its directory is damaged")
    return directory
