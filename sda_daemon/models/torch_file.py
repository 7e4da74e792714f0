"""Reads files that `torch.save` wrote, and never runs anything that is in them.

Names that are not installed here (every real checkpoint names an enum of the training application) are given inert
stand-ins; names of the standard library, torch and numpy that can do something are refused. What is made of the
ordinary things only is read by `tensors`, which compares checksums, everything else (files from before torch 1.6,
sparse tensors, …) by torch's weights-only reader.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from isal.isal_zlib import crc32

from sda_daemon.errors import (
    BrokenCheckpointError,
    CheckpointError,
    ForeignCheckpointError,
    OversizedCheckpointError,
    UnsafeCheckpointError,
)
from sda_daemon.models.tensors import LeaveOut, RefusedName, Unusual, read_ordinary
from sda_daemon.torchfile.archive import (
    LOCAL_HEADER_BYTES,
    NotRegularError,
    OversizedArchiveError,
    TorchArchive,
    content_offset,
    open_regular,
    read_archive,
    read_part,
)
from sda_daemon.torchfile.globals import EMPTY_BYTES, Judgement, judge_name, modern_name
from sda_daemon.torchfile.pickles import outline_pickle
from sda_daemon.torchfile.plain import stand_in_class

MAX_PICKLE_BYTES = 512 * 2**20
"""Largest `data.pkl`; a long metrics history makes tens of megabytes."""
_MAX_LEGACY_PICKLES = 5
_CHUNK_BYTES = 1 << 20

_allow_lock = threading.Lock()  # torch's list of allowed names is global


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a torch file holds.

    Attributes:
        content: the object that was saved; foreign values are stand-ins.
        digest: tells this content from any other that was not made to look the same. `zip-sha256:…` is over the zip's
            directory (names, sizes and CRC-32 of all parts) and `data.pkl`, which costs next to nothing; `sha256:…` is
            over the whole file, where it is no zip or has no checksums.
        size_bytes: of the file.
    """

    content: Any
    digest: str
    size_bytes: int


def _nothing(_content: Mapping[Any, Any]) -> tuple[()]:
    return ()


def read_torch_file(path: Path, leave_out: LeaveOut = _nothing, *, mapped: bool = True) -> TorchFile:
    """Load what `torch.save` wrote, with stand-ins for all that is foreign; nothing in it is executed.

    Args:
        path: the file.
        leave_out: tells which keys of the dict at the top are not wanted: they need not be read, and may be None.
        mapped: whether tensors may stay in the file until they are used, where torch's own reader has to read it: quick
            and frugal, but the process dies if the file is truncated before that.

    Raises:
        UnsafeCheckpointError: it names a function that has no business there.
        OversizedCheckpointError: it promises more than it holds.
        BrokenCheckpointError: truncated, damaged, or not written by torch.
        ForeignCheckpointError: a TorchScript program.
        OSError: it cannot be read.
    """
    try:
        descriptor = open_regular(path)
    except NotRegularError as error:
        raise BrokenCheckpointError(f"{path} is no regular file") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            raise BrokenCheckpointError(f"{path} is empty")
        try:
            if file.read(4) == b"PK\x03\x04":
                content, digest = _read_zip(file, path, status.st_size, leave_out, mapped=mapped)
            else:
                content, digest = _read_legacy(file, path, status.st_size), _file_digest(file)
        except MemoryError as error:
            raise OversizedCheckpointError(f"{path} asks for more memory than there is") from error
    return TorchFile(content, digest, status.st_size)


def _read_zip(file: BinaryIO, path: Path, size_bytes: int, leave_out: LeaveOut, *, mapped: bool) -> tuple[Any, str]:
    try:
        archive = read_archive(file, size_bytes)
        if "constants.pkl" in archive.parts:
            raise ForeignCheckpointError(f"{path} is a TorchScript program, not a checkpoint")
        part = archive.pickle_part(MAX_PICKLE_BYTES)
        if part is None:
            raise BrokenCheckpointError(f"{path} is a zip file, but torch did not write it")
        pickled = read_part(file, part)
        names = _judged(outline_pickle(pickled).names, path)
        is_ordinary, content = _try_ordinary(file, archive, pickled, leave_out)
        if not is_ordinary:  # here, where nothing is left of what was read so far
            _check_parts(file, archive)
            content = _load(file, path, names, mapped=mapped)
        return content, _digest(file, archive, pickled)
    except OversizedArchiveError as error:
        raise OversizedCheckpointError(f"{path} is no honest checkpoint: {error}") from error
    except RefusedName as error:
        _refuse(error.name, path)
    except (ValueError, zipfile.BadZipFile) as error:
        _explain_damage(error, path)


def _try_ordinary(file: BinaryIO, archive: TorchArchive, pickled: bytes, leave_out: LeaveOut) -> tuple[bool, Any]:
    try:
        return True, read_ordinary(file.fileno(), archive, pickled, leave_out)
    except Unusual:
        return False, None


def _digest(file: BinaryIO, archive: TorchArchive, pickled: bytes) -> str:
    if any(part.size_bytes and not part.crc for part in archive.parts.values()):
        return _file_digest(file)
    digest = hashlib.sha256(archive.directory)
    digest.update(pickled)
    return f"zip-sha256:{digest.hexdigest()}"


def _file_digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _check_parts(file: BinaryIO, archive: TorchArchive) -> None:
    """Compare the checksums of all parts: torch's reader does not.

    Raises:
        zipfile.BadZipFile: one is damaged.
    """
    for part in archive.parts.values():
        if not part.crc:
            continue
        file.seek(part.offset)
        file.seek(content_offset(part, file.read(LOCAL_HEADER_BYTES)))
        left, checksum = part.size_bytes, 0
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            checksum = crc32(chunk, checksum)
        if left or checksum != part.crc:
            raise zipfile.BadZipFile(f"its part {part.name[:80]!r} is damaged")


def _read_legacy(file: BinaryIO, path: Path, size_bytes: int) -> Any:
    """Read a file from before torch 1.6: several pickles one after the other, then the storages."""
    file.seek(0)
    try:
        names = _legacy_names(file.read(min(size_bytes, MAX_PICKLE_BYTES)), path)
    except ValueError as error:
        _explain_damage(error, path)
    return _load(file, path, _judged(names, path), mapped=False)


def _explain_damage(error: Exception, path: Path) -> NoReturn:
    if isinstance(error, CheckpointError):
        raise error
    raise BrokenCheckpointError(
        f"{path} is truncated, damaged or no checkpoint ({error})", "Copy it again, or train on"
    ) from error


def _legacy_names(data: bytes, path: Path) -> frozenset[str]:
    if data[257:262] == b"ustar":
        raise BrokenCheckpointError(
            f"{path} is in torch's old tar format, which cannot be read safely",
            "Load it where it was trained and save it again with a current torch",
        )
    if os.fsencode(path.name).endswith(b".zip"):
        raise BrokenCheckpointError(f"{path} is no checkpoint")
    names: set[str] = set()
    position = 0
    for _ in range(_MAX_LEGACY_PICKLES):
        outline = outline_pickle(data, position)
        names |= outline.names
        position = outline.end
        if position >= len(data):
            break
    return frozenset(names)


# --- names ------------------------------------------------------------------------------------------


def _judged(names: frozenset[str], path: Path) -> list[str]:
    """Return the names in order; refuse dangerous ones."""
    for name in sorted(names):
        if judge_name(name) is Judgement.REFUSED:
            _refuse(modern_name(name), path)
    return sorted(names)


def _refuse(name: str, path: Path) -> NoReturn:
    raise UnsafeCheckpointError(
        f"{path} wants to call {name}; nothing of it was run", "Do not trust where this file came from"
    )


def _stand_ins(names: list[str]) -> list[Any]:
    """Return what torch is to build for each name that it does not know; what else it does not allow, it refuses."""
    allowed: list[Any] = []
    for name in names:
        match judge_name(name):
            case Judgement.NUMPY:
                allowed += _numpy_names(name, modern_name(name).rpartition(".")[2])
            case Judgement.FOREIGN:
                allowed.append((stand_in_class(name), name))
            case _ if modern_name(name) == EMPTY_BYTES:
                allowed.append((_empty_bytes, EMPTY_BYTES))
            case _:
                continue
    return allowed


def _empty_bytes() -> bytes:
    """What `bytes` is for in a pickle; with a number it would fill the memory."""
    return b""


def _numpy_names(name: str, attribute: str) -> list[Any]:
    if name.startswith("numpy.dtypes."):
        return []
    reconstruct, scalar = _numpy_functions()
    thing = {"_reconstruct": reconstruct, "scalar": scalar, "ndarray": np.ndarray, "dtype": np.dtype}[attribute]
    dtypes = [getattr(np.dtypes, kind) for kind in dir(np.dtypes) if kind.endswith("DType")]
    return [(thing, name), *(d for d in dtypes if d is not np.dtypes.ObjectDType)]


def _numpy_functions() -> tuple[Any, Any]:
    """Numpy's two functions that pickles of arrays and of scalars name."""
    reconstruct = np.zeros(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    return reconstruct, scalar


# --- torch's own reader -----------------------------------------------------------------------------


def _load(file: BinaryIO, path: Path, names: list[str], *, mapped: bool) -> Any:
    """Let torch read the file; with `mapped`, tensors stay in it until they are used."""
    try:
        with _allowed(_stand_ins(names)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = _nameable(file, path)
            return torch.load(name, map_location="cpu", weights_only=True, mmap=True if mapped else None)
    except UnpicklingError as error:
        _explain_refusal(error, path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch reports damage as RuntimeError, KeyError, struct.error, …
        if "allocate" in str(error) or "out of memory" in str(error):
            raise OversizedCheckpointError(f"{path} asks for more memory than there is") from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BrokenCheckpointError(f"{path} is damaged: {reason}", "Copy it again, or train on") from error


@contextmanager
def _allowed(stand_ins: list[Any]) -> Iterator[None]:
    with _allow_lock, torch.serialization.safe_globals(stand_ins):
        yield


def _nameable(file: BinaryIO, path: Path) -> str:
    """Return a name under which torch opens the very file that was judged, whatever has its name by now.

    (Torch takes no descriptor where it maps a file, and wants names in UTF-8, which names on disk need not be.)
    """
    opened = f"/proc/self/fd/{file.fileno()}"
    return opened if os.path.exists(opened) else str(path)  # noqa: PTH110 - of a string


def _explain_refusal(error: UnpicklingError, path: Path) -> NoReturn:
    text = str(error)
    for marker in ("GLOBAL ", "reduce for unrecognized function ", "create new object for "):
        if marker in text:
            name = text.split(marker, 1)[1].split(" ", 1)[0].rstrip(".,")
            raise UnsafeCheckpointError(f"{path} wants to call {name}; nothing of it was run") from error
    raise BrokenCheckpointError(f"{path} is no checkpoint that torch can read safely: {text[:300]}") from error
