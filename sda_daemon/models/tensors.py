"""Makes tensors and arrays of what the inert unpickler recorded, straight from the parts of a torch file.

torch's own safe reader is written in Python and takes longer than all the rest of a conversion but the hashing; it also
reads what nobody wants (the optimizer) and compares no checksums. Here only what every honest checkpoint and model is
made of is understood. Whatever else there is raises `Unusual`, and torch's reader has the word.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from isal.isal_zlib import crc32
from torch import Tensor

from sda_daemon.torchfile.archive import (
    LOCAL_HEADER_BYTES,
    OversizedArchiveError,
    Part,
    TorchArchive,
    check_part,
    content_offset,
)
from sda_daemon.torchfile.globals import EMPTY_BYTES, Judgement, judge_name, modern_name
from sda_daemon.torchfile.plain import MAX_DEPTH, StandIn
from sda_daemon.torchfile.unpickler import PARAMETER_FUNCTIONS, STORAGE_TYPES, TENSOR_FUNCTION, InertUnpickler, as_bytes

_ORDINARY_NAMES = frozenset(
    {"collections.OrderedDict", "_codecs.encode", EMPTY_BYTES, TENSOR_FUNCTION, *PARAMETER_FUNCTIONS}
)
_NUMBER_TYPES = frozenset({"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"})
_LITTLE = b"little"
_MOST_VALUES = 2_000_000
"""Values that are looked at; tuples that share their items can be small in a file and endless when written out."""


class Unusual(Exception):
    """Something that only torch's own reader may judge."""


class RefusedName(Exception):
    """The pickle asked for a name that can do something; `name` is what it is called today."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _OrdinaryUnpickler(InertUnpickler):
    """Stops at the first name that is not one of an ordinary file, also where it is put together at run time."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a name of an ordinary file."""
        stand_in = super().find_class(module, name)
        if not _is_ordinary(f"{module}.{name}"):
            raise Unusual
        return stand_in


@lru_cache(maxsize=1024)
def _is_ordinary(name: str) -> bool:
    name = modern_name(name)
    judgement = judge_name(name)
    if judgement is Judgement.REFUSED:
        raise RefusedName(name)
    if judgement is Judgement.TORCH:
        root, _, attribute = name.rpartition(".")
        return name in _ORDINARY_NAMES or (root == "torch" and attribute in STORAGE_TYPES)
    return judgement in (Judgement.NUMPY, Judgement.FOREIGN) or name in _ORDINARY_NAMES


LeaveOut = Callable[[Mapping[Any, Any]], Iterable[Any]]
"""Tells which keys of the dict at the top of a file are not wanted."""


def read_ordinary(descriptor: int, archive: TorchArchive, pickled: bytes, leave_out: LeaveOut) -> Any:
    """Return what a torch file holds; foreign values are stand-ins.

    Args:
        descriptor: of the file; its position does not matter.
        archive: the file's parts.
        pickled: its `data.pkl`, already walked over.
        leave_out: tells the keys of the dict at the top whose values are not wanted: they become None, unread.

    Raises:
        Unusual: it is not made of the ordinary things, or these do not fit together.
        RefusedName: it names something that can do something.
        OversizedArchiveError: its arrays would take more memory than its pickle.
        MemoryError: there is not enough.
        zipfile.BadZipFile: a tensor's bytes are not those that were written.
        OSError: the file cannot be read.
    """
    order = archive.parts.get("byteorder")
    if sys.byteorder != "little" or (order is not None and (order.size_bytes, order.crc) != _checksum(_LITTLE)):
        raise Unusual
    try:
        content = _OrdinaryUnpickler(pickled).load()
        if isinstance(content, dict):
            content.update([(key, None) for key in leave_out(content)])
        return _Builder(descriptor, archive, len(pickled)).build(content)
    except (Unusual, RefusedName, OversizedArchiveError, OSError, MemoryError, zipfile.BadZipFile):
        raise
    except Exception as error:  # a hostile pickle can make an unpickler raise anything
        raise Unusual from error


def _checksum(content: bytes) -> tuple[int, int]:
    return len(content), crc32(content)


class _Builder:
    """Replaces the stand-ins inside containers by what they stand for; what is shared stays shared."""

    def __init__(self, descriptor: int, archive: TorchArchive, pickled_bytes: int) -> None:
        self._descriptor = descriptor
        self._parts = archive.parts
        self._storages: dict[str, Tensor] = {}
        self._made: dict[int, tuple[StandIn, Any]] = {}
        """By the id of the stand-in, which is kept, so that no other one can get that id."""
        self._bytes_left = pickled_bytes
        self._left = _MOST_VALUES

    def build(self, content: Any) -> Any:
        """Return the value, with everything inside it built; containers are changed in place."""
        content = self._value(content, 0)
        waiting, seen = [content], set()
        while waiting:
            holder = waiting.pop()
            if not isinstance(holder, dict | list) or id(holder) in seen:
                if isinstance(holder, tuple):
                    waiting += holder
                continue
            seen.add(id(holder))
            if isinstance(holder, dict):
                for key, item in holder.items():
                    holder[key] = self._value(item, 0)
                    if isinstance(key, StandIn | tuple):
                        raise Unusual
                waiting += holder.values()
            else:
                holder[:] = [self._value(item, 0) for item in holder]
                waiting += holder
        return content

    def _value(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if isinstance(value, StandIn):
            made = self._made.get(id(value))
            if made is None:
                made = self._made[id(value)] = value, self._built(value)
            return made[1]
        if not isinstance(value, tuple):
            return value
        if depth > MAX_DEPTH or self._left < 0 or _is_storage(value):
            raise Unusual
        return tuple(self._value(item, depth + 1) for item in value)

    def _built(self, value: StandIn) -> Any:
        name = modern_name(value.foreign_name)
        if name == TENSOR_FUNCTION:
            return self._tensor(value.args)
        if name in PARAMETER_FUNCTIONS:
            inner = value.args[0]
            if not isinstance(inner, StandIn) or inner.foreign_name != TENSOR_FUNCTION:
                raise Unusual
            return self._tensor(inner.args)
        if name in ("_codecs.encode", EMPTY_BYTES):
            return self._bytes(value)
        if judge_name(name) is Judgement.NUMPY:
            return self._number(value) if name.endswith(".scalar") else self._array(value)
        return value

    def _array(self, value: StandIn) -> Any:
        """Build from the state that `numpy.ndarray.__setstate__` would take: version, shape, type, order, bytes."""
        _version, shape, kind, is_fortran, data = value.state
        flat = np.frombuffer(self._bytes(data), _number_type(kind))
        return flat.reshape(shape, order="F" if is_fortran else "C").copy(order="K")

    def _number(self, value: StandIn) -> Any:
        kind, data = value.args
        return np.frombuffer(self._bytes(data), _number_type(kind)).reshape(()).copy()[()]

    def _bytes(self, value: Any) -> bytes:
        """Return bytes of the pickle, all in all no more than it has: one text can be named by many arrays."""
        data = as_bytes(value)
        if data is None:
            raise Unusual
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise OversizedArchiveError("its arrays share bytes, and would take many times as much memory")
        return data

    def _tensor(self, args: tuple[Any, ...]) -> Tensor:
        """Build from what `torch._utils._rebuild_tensor_v2` is called with."""
        storage, offset, shape, strides = args[:4]
        if len(args) > 6 and args[6]:
            raise Unusual  # a lazily conjugated or negated one
        flat = self._storage(*storage)
        count = 1
        last = offset
        for size, stride in zip(shape, strides, strict=True):
            if size < 0 or stride < 0:
                raise Unusual
            count *= size
            last += (size - 1) * stride
        if count and not 0 <= offset <= last < flat.numel():
            raise Unusual
        return torch.as_strided(flat, shape, strides, offset if count else 0)

    def _storage(self, what: str, kind: Any, key: str, _device: str, count: int) -> Tensor:
        """Return a storage's elements; device names do not matter, everything is read onto the CPU."""
        type_name, width = STORAGE_TYPES[kind.foreign_name.rpartition(".")[2]]
        part = self._parts[f"data/{key}"]
        if what != "storage" or not isinstance(count, int):
            raise Unusual
        if part.size_bytes != count * width:  # torch would take what comes next in the file
            raise zipfile.BadZipFile(f"its part {part.name[:80]!r} has not the size of the tensor in it")
        if key not in self._storages:
            self._storages[key] = self._read(part)
        return self._storages[key].view(getattr(torch, type_name))

    def _read(self, part: Part) -> Tensor:
        header = os.pread(self._descriptor, LOCAL_HEADER_BYTES, part.offset)
        at = content_offset(part, header)
        try:
            raw = torch.empty(part.size_bytes, dtype=torch.uint8)
        except RuntimeError as error:  # torch's way to say so
            raise MemoryError from error
        buffer = memoryview(raw.numpy().data)
        done = 0
        while done < part.size_bytes:
            count = os.preadv(self._descriptor, [buffer[done:]], at + done)
            if not count:
                raise zipfile.BadZipFile(f"its part {part.name[:80]!r} is truncated")
            done += count
        check_part(part, buffer)
        return raw


def _number_type(kind: StandIn) -> Any:
    """Return numpy's type for a `dtype` that was called with a code and then told its byte order."""
    code = kind.args[0]
    order = kind.state[1] if kind.state else "="
    if (
        modern_name(kind.foreign_name) != "numpy.dtype"
        or code not in _NUMBER_TYPES
        or order not in ("<", ">", "|", "=")
    ):
        raise Unusual
    return np.dtype(order + code)


def _is_storage(value: tuple[Any, ...]) -> bool:
    """Tell whether a tuple is what names a storage; within a tensor it is never asked for."""
    return len(value) > 1 and isinstance(value[1], type) and value[0] == "storage"
