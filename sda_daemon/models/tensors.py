"""Makes tensors and arrays of what the inert unpickler recorded, straight from the bytes of a torch file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sda_daemon.torchfile.allowance import begin_file
from sda_daemon.torchfile.archive import LOCAL_HEADER_BYTES, Part, check_part, content_offset
from sda_daemon.torchfile.faults import Damaged, Fault
from sda_daemon.torchfile.globals import BYTES_FUNCTIONS, TENSOR_FUNCTIONS, NameKind, kind_of_name, modern_name
from sda_daemon.torchfile.outlines import STORAGE_TYPES, WITH_TYPE, element_type, shape_of, tensor_call
from sda_daemon.torchfile.plain import MAX_DEPTH
from sda_daemon.torchfile.reader import TorchContents
from sda_daemon.torchfile.stand_ins import LargeInteger, StandIn, StorageRef
from sda_daemon.torchfile.survey import survey
from sda_daemon.torchfile.unpickler import GuardedDict
from sda_daemon.torchfile.values import array_parts, as_bytes, is_shape, mapping_of

_NUMBER_TYPES = frozenset({"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"})
_LARGEST_STRIDE = 2**62
_BIG = b"big"
_LEAVES = frozenset({type(None), bool, int, float, str, bytes, bytearray, Tensor})
_AS_IS = _LEAVES | {list, dict, GuardedDict}
_COMPLEX_HALVES = {"complex64": 4, "complex128": 8, "complex32": 2}

LeaveOut = Callable[[Mapping[Any, Any]], Iterable[Any]]
"""Tells which keys of the dict at the top of a file are not wanted."""


def build_tensors(descriptor: int, found: TorchContents, leave_out: LeaveOut) -> Any:
    """Return what a torch file holds, with tensors and arrays in the place of their stand-ins.

    Args:
        descriptor: of the file; its position does not matter.
        found: what was read of it.
        leave_out: tells the keys of the dict at the top whose values are not wanted: they become None, unread.

    Raises:
        Damaged: a tensor's bytes are not those that were written, or do not fit.
        Oversized: its arrays would take more memory than its pickle.
        MemoryError: there is not enough.
        OSError: the file cannot be read.
    """
    content = found.content
    top = mapping_of(content)
    if top is not None:
        content = top
        content.update([(key, None) for key in leave_out(content)])
    survey(content, most_bytes=found.pickle_bytes)
    begin_file(os.fstat(descriptor).st_size)  # what is spent from here on has been surveyed
    try:
        return _Builder(descriptor, found).build(content)
    except (Fault, OSError, MemoryError):
        raise
    except Exception as error:  # a hostile pickle can call for anything
        raise Damaged("its tensors do not fit together") from error


class _Builder:
    """Replaces the stand-ins inside containers by what they stand for; what is shared stays shared."""

    def __init__(self, descriptor: int, found: TorchContents) -> None:
        self._descriptor = descriptor
        self._found = found
        self._storages: dict[str, Tensor] = {}
        self._swapped: dict[tuple[str, int], Tensor] = {}
        self._made: dict[int, tuple[Any, Any]] = {}
        """What was made of stand-ins and tuples, by their ids; they are kept, so that nothing else can get these."""
        self._is_big = self._is_big_endian()

    def _is_big_endian(self) -> bool:
        part = self._found.archive and self._found.archive.parts.get("byteorder")
        if not part or part.size_bytes != len(_BIG):
            return False
        at = self._content_offset(part)
        return os.pread(self._descriptor, len(_BIG), at) == _BIG

    def build(self, content: Any) -> Any:
        """Return the value, with everything inside it built; containers are changed in place."""
        content = self._value(content, 0)
        waiting, seen = [content], set()
        while waiting:
            holder = waiting.pop()
            if holder.__class__ in _LEAVES or (place := id(holder)) in seen:
                continue
            seen.add(place)
            if isinstance(holder, dict):
                for key, item in holder.items():
                    if item.__class__ not in _AS_IS:
                        dict.__setitem__(holder, key, self._value(item, 0))
                waiting += [item for item in holder.values() if item.__class__ not in _LEAVES]
            elif isinstance(holder, list):
                if not _AS_IS.issuperset(map(type, holder)):
                    holder[:] = [item if item.__class__ in _AS_IS else self._value(item, 0) for item in holder]
                waiting += [item for item in holder if item.__class__ not in _LEAVES]
            elif isinstance(holder, tuple):
                waiting += holder
            elif isinstance(holder, StandIn):
                items = mapping_of(holder)
                waiting.append(holder.content if items is None else items)
        return content

    def _value(self, value: Any, depth: int) -> Any:
        if not isinstance(value, StandIn | tuple | LargeInteger) or depth > MAX_DEPTH:
            return value
        place = id(value)
        made = self._made.get(place)
        if made is None:
            if isinstance(value, LargeInteger):
                made = value, int(value)
            elif isinstance(value, tuple):
                made = value, tuple(self._value(item, depth + 1) for item in value)
            else:
                made = value, self._built(value)
            self._made[place] = made
        return made[1]

    def _built(self, value: StandIn) -> Any:
        call = tensor_call(value)
        if call is not None:
            return value if TENSOR_FUNCTIONS[call[0]] else self._tensor(*call)
        name = modern_name(value.foreign_name)
        if name in BYTES_FUNCTIONS:
            data = as_bytes(value)
            return value if data is None else self._bytes(value)
        if kind_of_name(name) is NameKind.NUMPY:
            return self._number(value) if name.endswith(".scalar") else self._array(value)
        return value

    def _array(self, value: StandIn) -> Any:
        parts = array_parts(value)
        if parts is None:
            return value
        shape, kind, is_fortran, data = parts
        element = _number_type(kind)
        if element is None or not is_shape(shape):
            return value
        flat = np.frombuffer(self._bytes(data), element)
        return flat.reshape(tuple(shape), order="F" if is_fortran else "C").copy(order="K")

    def _number(self, value: StandIn) -> Any:
        if len(value.args) != 2:
            return value
        kind, data = value.args
        element = _number_type(kind)
        return value if element is None else np.frombuffer(self._bytes(data), element).reshape(()).copy()[()]

    def _bytes(self, value: Any) -> bytes:
        data = as_bytes(value)
        if data is None:
            raise Damaged("its arrays have no bytes")
        return data

    def _tensor(self, function: str, args: tuple[Any, ...]) -> Any:
        """Build from what torch's functions are called with: storage, offset, shape, strides, and more."""
        storage, offset, raw_shape, raw_strides = args[:4]
        shape, strides = shape_of(raw_shape), shape_of(_positive(raw_strides, raw_shape))
        if not isinstance(storage, StorageRef) or shape is None or strides is None:
            raise Damaged("its tensors are not what torch writes")
        with_type = function == WITH_TYPE
        type_name, _ = element_type(function, args)
        element = getattr(torch, type_name, None)
        if not isinstance(element, torch.dtype) or storage.kind not in STORAGE_TYPES:
            return torch.empty(shape, device="meta")  # of a kind that this torch does not know: it has no values
        flat = self._storage(storage, type_name, element)
        count, last = 1, offset
        for size, stride in zip(shape, strides, strict=True):
            count *= size
            last += (size - 1) * stride
        if count and not 0 <= offset <= last < flat.numel():
            raise Damaged("a tensor is larger than its storage")
        tensor = torch.as_strided(flat, shape, strides, offset if count else 0)
        metadata = mapping_of(args[7 if with_type else 6]) if len(args) > (7 if with_type else 6) else None
        for key, lazily in (("conj", torch.conj), ("neg", torch._neg_view)):
            if metadata and metadata.get(key):
                tensor = lazily(tensor)
        return tensor

    def _storage(self, storage: StorageRef, type_name: str, element: torch.dtype) -> Tensor:
        """Return a storage's elements; device names do not matter, everything is read onto the CPU."""
        width = STORAGE_TYPES[storage.kind][1]
        if storage.key not in self._storages:
            self._storages[storage.key] = self._read(storage, width)
        raw = self._storages[storage.key]
        if self._is_big:
            width = _COMPLEX_HALVES.get(type_name, element.itemsize)
            swapped = self._swapped.get((storage.key, width))
            if swapped is None:  # each storage once, however many tensors look into it
                swapped = torch.from_numpy(raw.numpy().view(f"u{width}").byteswap().view(np.uint8))
                self._swapped[storage.key, width] = swapped
            raw = swapped
        flat = raw.view(element)
        return flat[storage.offset : storage.offset + storage.count] if storage.offset else flat

    def _read(self, storage: StorageRef, width: int) -> Tensor:
        wanted = (storage.offset + storage.count) * width
        if self._found.archive is None:
            extent = self._found.extents.get(storage.key)
            if extent is None or extent.size_bytes < wanted:
                raise Damaged(f"its storage {storage.key[:80]!r} is not there")
            return self._read_bytes(extent.offset, extent.size_bytes, storage.key)
        part = self._found.archive.parts.get(f"data/{storage.key}")
        if part is None:
            raise Damaged(f"its part 'data/{storage.key[:80]}' is missing")
        if part.size_bytes != wanted:  # torch would take what comes next in the file
            raise Damaged(f"its part {part.name[:80]!r} has not the size of the tensor in it")
        raw = self._read_bytes(self._content_offset(part), part.size_bytes, part.name)
        check_part(part, memoryview(raw.numpy().data))
        return raw

    def _content_offset(self, part: Part) -> int:
        return content_offset(part, os.pread(self._descriptor, LOCAL_HEADER_BYTES, part.offset))

    def _read_bytes(self, at: int, count: int, name: str) -> Tensor:
        try:
            raw = torch.empty(count, dtype=torch.uint8)
        except RuntimeError as error:  # torch's way to say so
            raise MemoryError from error
        buffer = memoryview(raw.numpy().data)
        done = 0
        while done < count:
            got = os.preadv(self._descriptor, [buffer[done:]], at + done)
            if not got:
                raise Damaged(f"its part {name[:80]!r} is truncated")
            done += got
        return raw


def _positive(strides: Any, shape: Any) -> Any:
    """Return strides in which those of dimensions of size 1, which may be anything, are 1."""
    if not isinstance(strides, tuple) or not isinstance(shape, tuple) or len(strides) != len(shape):
        return strides
    return tuple(
        1 if size == 1 and not 0 <= stride < _LARGEST_STRIDE else stride
        for size, stride in zip(shape, strides, strict=True)
    )


def _number_type(kind: Any) -> Any:
    """Return numpy's type for a `dtype` that was called with a code and then told its byte order; None for others."""
    if not isinstance(kind, StandIn) or modern_name(kind.foreign_name) != "numpy.dtype" or not kind.args:
        return None
    code = kind.args[0]
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "="
    is_known = isinstance(code, str) and code in _NUMBER_TYPES and order in ("<", ">", "|", "=")
    return np.dtype(order + code) if is_known else None
