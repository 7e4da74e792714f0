"""Reads what a torch file holds but the bytes of its tensors: the one way for all that looks into such a file.

Archive, pickle, names and values are each checked before the next step. Nothing of a file is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sda_daemon.torchfile.archive import MAX_DIRECTORY_BYTES, TorchArchive, read_archive, read_part
from sda_daemon.torchfile.faults import Damaged, Fault, OtherKind, Oversized, TooLarge, Unsafe
from sda_daemon.torchfile.globals import NameKind, kind_of_name, modern_name
from sda_daemon.torchfile.kinds import START_BYTES, kind_of_magic, kind_of_start, unknown_start
from sda_daemon.torchfile.outlines import STORAGE_TYPES
from sda_daemon.torchfile.pickles import PickleTooCostlyError, Walk, walk_pickle
from sda_daemon.torchfile.resident import resident_bytes
from sda_daemon.torchfile.stand_ins import StandIn, StorageRef
from sda_daemon.torchfile.unpickler import InertUnpickler
from sda_daemon.torchfile.zip_records import PART_START

MAX_PICKLE_BYTES = 512 * 2**20
"""Largest `data.pkl`; a long metrics history makes tens of megabytes."""
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_LONGEST_MAGIC = 64
_OLD_PICKLES = ("magic number", "version", "system", "content", "storages")
_OLD_VERSION = 1001
_CHUNK_BYTES = 1 << 20
_LENGTH = struct.Struct("<q")
FROM_BYTES = "torch.storage._load_from_bytes"
"""What a plain pickle calls for each storage: torch's own reader, on bytes within."""
BARE_PICKLE = "bare pickle"
# Operations with which a pickle of protocol 0 or 1 begins: a dict, a list, a tuple, a name, a text, a number.
_TEXT_PICKLE = re.compile(rb"[\(\]\}cVSIFLNKMJG]")
# What values take in memory where they are smallest in a pickle: bytes of an object, of the places that refer to it
# while it is read, of its place among those that were seen, and of what is made of it.
_COSTS = {
    **dict.fromkeys((b"]", b"}", b"l", b"\x91"), 160), **dict.fromkeys((b"\x85", b"\x86", b"\x87", b"t"), 350),
    **dict.fromkeys((b"N", b")", b"\x88", b"\x89", b"K", b"h", b"j"), 24),
    **dict.fromkeys((b"R", b"\x81", b"o", b"i"), 350), **dict.fromkeys((b"X", b"U", b"\x8c", b"C"), 80),
    b"\x92": 400, b"d": 300, b"u": 200, b"s": 50, b"a": 10, b"e": 60, b"G": 48, b"M": 52, b"J": 56, b"\x8a": 350,
}  # fmt: skip
_CHEAP_PICKLE_BYTES = 128 * 1024
_FREE_BYTES = 31 * 2**20


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a storage's bytes are in an old file."""

    offset: int
    size_bytes: int


@dataclass(slots=True)
class TorchContents:
    """What was found in a file so far; `read` fills it step by step, and what it found before a fault stays.

    Attributes:
        container: "zip", "old torch file", "bare pickle", or empty.
        archive: the parts of a zip, None for an old file.
        names: every name that its pickle would import, with what becomes of it.
        content: the object that was saved; tensors, arrays and everything foreign are stand-ins.
        digest: tells this content from any other that was not made to look the same. `zip-sha256:…` is over the zip's
            directory (names, sizes and CRC-32 of all parts) and `data.pkl`, which costs next to nothing; `sha256:…` is
            over the whole file, where it is no zip or has no checksums.
        extents: of the storages, by key, in an old file.
    """

    container: str = ""
    archive: TorchArchive | None = None
    names: dict[str, NameKind] = field(default_factory=dict)
    content: Any = None
    digest: str = ""
    pickle_bytes: int = 0
    extents: Mapping[str, Extent] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a file.

    Attributes:
        max_pickle_bytes: largest pickle that is loaded.
        max_directory_bytes: largest directory of a zip that is looked at.
        with_digest: whether the content's digest is.
        lenient: whether the content is wanted even if it names something that can act: to be shown, never to be used.
    """

    max_pickle_bytes: int = MAX_PICKLE_BYTES
    max_directory_bytes: int = MAX_DIRECTORY_BYTES
    with_digest: bool = False
    lenient: bool = False


def read_contents(
    file: BinaryIO, size_bytes: int, wishes: Wishes = Wishes(), into: TorchContents | None = None
) -> TorchContents:
    """Read what `torch.save` wrote, but for the bytes of tensors.

    Args:
        file: seekable.
        size_bytes: its size.
        wishes: what is wanted of it.
        into: takes what is found; what was found before a fault is in there.

    Raises:
        Unsafe: it names something that can act.
        TooLarge: its pickle or directory is larger than is wanted.
        Oversized: it would cost more than its size is worth.
        Damaged: truncated, or not what was written.
        OtherKind: something else that is known.
        NotTorch: nothing that is known.
        MemoryError: there is not enough.
        OSError: it cannot be read.
    """
    reader = _Reader(file, size_bytes, wishes, TorchContents() if into is None else into)
    reader.read()
    return reader.found


class _Reader:
    def __init__(self, file: BinaryIO, size_bytes: int, wishes: Wishes, found: TorchContents) -> None:
        self.file, self.size_bytes, self.wishes, self.found = file, size_bytes, wishes, found
        self.resident_bytes = 0
        """What the process had before it took a large pickle; 0 as long as there is none."""

    def read(self) -> None:
        self.file.seek(0)
        start = self.file.read(START_BYTES)
        if start.startswith(PART_START):
            self.found.container = "zip"
            self._read_zip()
        elif start.startswith(b"\x80"):
            self._read_old()
        else:
            if _TEXT_PICKLE.match(start) and kind_of_magic(start) is None:
                with contextlib.suppress(Damaged):  # then it is no pickle
                    self._read_old()
                    return
            raise kind_of_start(start, self.size_bytes) or unknown_start(start)

    def _read_zip(self) -> None:
        archive = self.found.archive = read_archive(self.file, self.size_bytes, self.wishes.max_directory_bytes)
        part = archive.pickle_part(self.wishes.max_pickle_bytes)
        self._expect(part.size_bytes)
        pickled = read_part(self.file, part)
        self.found.pickle_bytes = len(pickled)
        if self.wishes.with_digest:
            self.found.digest = self._digest(archive, pickled)
        walk = self._walk(pickled, drop_puts=True)
        if walk.wraps:
            del pickled  # what may be loaded is a copy
            self.found.content = self._load(walk)
            return
        try:
            self.found.content = self._load(walk)
        except Damaged:  # a tuple may be in two places
            self.found.content = self._load(self._walk(pickled, wrap=True))

    def _expect(self, pickle_bytes: int) -> None:
        """Remember what the process has before it takes a pickle that may be costly."""
        if pickle_bytes > _CHEAP_PICKLE_BYTES:
            self.resident_bytes = resident_bytes()

    def _digest(self, archive: TorchArchive, pickled: bytes) -> str:
        if any(part.size_bytes and not part.crc for part in archive.parts.values()):
            return self._file_digest()
        digest = hashlib.sha256(archive.directory)
        digest.update(pickled)
        return f"zip-sha256:{digest.hexdigest()}"

    def _file_digest(self) -> str:
        digest = hashlib.sha256()
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK_BYTES):
            digest.update(chunk)
        return f"sha256:{digest.hexdigest()}"

    def _walk(self, data: bytes, start: int = 0, *, wrap: bool | None = None, drop_puts: bool = False) -> Walk:
        """Walk over a pickle and judge the names that stand in it."""
        try:
            walk = walk_pickle(data, start, self.size_bytes, wrap=wrap, drop_puts=drop_puts)
        except PickleTooCostlyError as error:
            raise Oversized(str(error)) from error
        except ValueError as error:
            raise Damaged("its pickle breaks off or is none") from error
        for name in sorted(walk.names):
            kind = self.found.names[name] = kind_of_name(name)
            if kind is NameKind.REFUSED and not self.wishes.lenient:
                raise Unsafe(modern_name(name))
        return walk

    def _load(self, walk: Walk) -> Any:
        already = most = 0
        if len(walk.safe) > _CHEAP_PICKLE_BYTES and _may_be_costly(walk.safe, self.size_bytes):
            already, most = self.resident_bytes or resident_bytes(), _FREE_BYTES + 3 * self.size_bytes
        unpickler = InertUnpickler(walk, lenient=self.wishes.lenient, memory_bytes=most, already_bytes=already)
        try:
            return unpickler.load()
        finally:
            self.found.names.update(unpickler.names)  # also those that it puts together while it is loaded

    # --- files from before torch 1.6 ----------------------------------------------------------------

    def _read_old(self) -> None:
        try:
            self._read_pickles()
        except Unsafe as unsafe:
            raise (self._plain_pickle() if unsafe.name == FROM_BYTES else unsafe) from None

    def _plain_pickle(self) -> Fault:
        has_tensors = any(modern_name(name) == FROM_BYTES for name in self.found.names)
        what = "a plain pickle with tensors in it" if has_tensors else "a plain pickle"
        return OtherKind(
            f"is {what}, which torch.save did not write", "Load it where it was made and save it with torch.save"
        )

    def _read_pickles(self) -> None:
        """Read pickles one after the other: magic number, version, system, content, keys of the storages behind."""
        if self.size_bytes > self.wishes.max_pickle_bytes < MAX_PICKLE_BYTES:
            raise TooLarge(
                f"it has {self.size_bytes} bytes, and where its tensors begin is not known "
                f"(at most {self.wishes.max_pickle_bytes} are read)"
            )
        self._expect(self.size_bytes)
        self.file.seek(0)
        data = self.file.read(min(self.size_bytes, self.wishes.max_pickle_bytes))
        walks = self._old_walks(data)
        if len(walks) < len(_OLD_PICKLES):
            self.found.container = BARE_PICKLE
            self.found.content = self._load(walks[0])
            raise self._plain_pickle()
        self.found.container = "old torch file"
        _, version, system, content, keys = map(self._load, walks)
        if version != _OLD_VERSION:
            raise OtherKind(f"is an old torch file of an unknown version ({str(version)[:20]})")
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise OtherKind("was written on a big-endian machine by an old torch", "Save it again with a current torch")
        self.found.content, self.found.pickle_bytes = content, walks[3].end - walks[2].end
        self.found.extents = _extents(self.file, self.size_bytes, walks[-1].end, keys, content)
        if self.wishes.with_digest:
            self.found.digest = self._file_digest()

    def _old_walks(self, data: bytes) -> list[Walk]:
        """Walk over the pickles; only the first where that does not hold torch's magic number."""
        walks = [self._walk(data, wrap=True)]
        if len(walks[0].safe) > _LONGEST_MAGIC or self._load(walks[0]) != _OLD_MAGIC:
            return walks
        while len(walks) < len(_OLD_PICKLES):
            walks.append(self._walk(data, walks[-1].end, wrap=True))
        return walks


def _may_be_costly(pickled: bytes, size_bytes: int) -> bool:
    """Tell whether values could take too much memory, estimated from above: each byte may be an operation."""
    left = _FREE_BYTES + 3 * size_bytes
    for begin in range(0, len(pickled), _CHUNK_BYTES):
        chunk = pickled[begin : begin + _CHUNK_BYTES]
        left -= sum(chunk.count(operation) * cost for operation, cost in _COSTS.items())
        if left < 0:
            return True
    return False


def _extents(file: BinaryIO, size_bytes: int, begin: int, keys: Any, content: Any) -> dict[str, Extent]:
    """Find the storages: behind the pickles, in the order of `keys`, each behind the number of its elements."""
    widths = _widths(content)
    extents: dict[str, Extent] = {}
    at = begin
    for key in keys if isinstance(keys, list) else []:
        file.seek(at)
        head = file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise Damaged("its end is missing")
        count, width = _LENGTH.unpack(head)[0], widths.get(key) if isinstance(key, str) else None
        if width is None:
            raise Damaged("its storages are not those of its tensors")
        at += _LENGTH.size
        if count < 0 or at + count * width > size_bytes:
            raise Damaged("its end is missing")
        extents[key] = Extent(at, count * width)
        at += count * width
    return extents


def _widths(content: Any) -> dict[str, int]:
    """Return how many bytes an element of each storage takes that is named anywhere in the content."""
    widths: dict[str, int] = {}
    waiting, seen = [content], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, StorageRef):
            widths[item.key] = STORAGE_TYPES.get(item.kind, ("", 1))[1]
        elif isinstance(item, dict | list | tuple | StandIn) and id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                waiting += item.values()
            elif isinstance(item, StandIn):
                waiting += [*item.args, item.state, item.content]
            else:
                waiting += item
    return widths
