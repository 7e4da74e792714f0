"""Replaces one value in the dict that a pickle holds, and leaves every other byte as it is. Pure.

The pickle is walked over, never loaded. Only what `torch.save` writes is understood: protocol 2, a plain
dict at the top. Later parts of a pickle may refer back to things inside the replaced value (texts, numpy's types and
numbers, lists that both hold); the first of these references is written out, as it stood in the old value.
A value with numpy's arrays is written as numpy itself writes it, with places in the memo that the rest does not use.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sda_daemon.torchfile.pickles import walk_pickle

_KEEP_FIRST = frozenset({"SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS", "BUILD"})
_REFUSED = frozenset({"POP", "POP_MARK", "DUP", "FRAME", "MEMOIZE", "INST", "OBJ", "EXT1", "EXT2", "EXT4"})
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "PUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET", "GET"})
_MARK: Any = object()
_ITEM, _PUT, _GET = "item", "put", "get"
_LARGEST_NUMBER = 8
"""Bytes of one; longer floats are not the same on every machine."""
_MOST_OPERATIONS = 50_000
"""A model's pickle has some thousand."""
_DEEPEST_NEST = 100
"""References inside what is referred to, one in the other."""


@dataclass(slots=True)
class _Item:
    """Something on the unpickler's stack: the bounds of its bytes, its text if it is one, where it was taken from."""

    start: int
    end: int
    text: str | None = None
    taken_from: int | None = None
    """The place in the memo, of what was made earlier."""


@dataclass(slots=True, frozen=True)
class _Get:
    """A reference back: its bounds, and the place in the memo that it names."""

    start: int
    end: int
    place: int


@dataclass(slots=True)
class _Walk:
    """What a walk over the pickle found."""

    value: tuple[int, int] | None = None
    """Bounds of the wanted value's bytes."""
    puts: dict[int, tuple[int, int, _Item]] = field(default_factory=dict)
    """Of each place in the memo: the bounds of the operation that fills it, and what it puts there."""
    gets: list[_Get] = field(default_factory=list)
    changed_later: set[int] = field(default_factory=set)
    """Places whose contents are changed through a reference to them."""


def replace_value(pickle_data: bytes, key: str, value: Any) -> bytes:
    """Return the pickle with another value under a key of its dict.

    Args:
        pickle_data: the `data.pkl` of a torch file.
        key: which value.
        value: a plain value (None, bool, int, float, str), one of numpy's numbers or arrays of numbers, or a list or
            a dict of these.

    Raises:
        ValueError: the pickle is damaged, or not of the kind that torch writes; the message says why.
    """
    if walk_pickle(pickle_data).end != len(pickle_data):
        raise ValueError("there is something behind the pickle's end")
    try:
        walk = _walk(pickle_data, key)
    except (IndexError, KeyError) as error:
        raise ValueError("its operations do not fit together") from error
    if walk.value is None:
        raise ValueError(f"it has no {key!r}")
    begin, end = walk.value
    rest = _Rest(pickle_data, walk, key)
    rest.copy(end, len(pickle_data))
    return b"".join([pickle_data[:begin], encode_value(value, max(walk.puts, default=-1) + 1), *rest.parts])


class _Rest:
    """Writes the operations behind the replaced value, and what they need of it."""

    def __init__(self, data: bytes, walk: _Walk, key: str) -> None:
        begin, end = walk.value or (0, 0)
        self.parts: list[bytes] = []
        self._data, self._key, self._walk = data, key, walk
        inside = {place: whole for place, whole in walk.puts.items() if begin <= whole[0] < end}
        self._missing = set(inside)
        """Places in the memo that the replaced value filled, and that nothing has filled since."""
        spans = [(item.start, max(item.end, put_end), place, _ITEM) for place, (_, put_end, item) in inside.items()]
        spans += [(put_at, put_end, place, _PUT) for place, (put_at, put_end, _) in inside.items()]
        spans += [(get.start, get.end, get.place, _GET) for get in walk.gets]
        self._spans = sorted(spans, key=lambda span: (span[0], -span[1]))
        """Bounds of what fills these places and of what refers to any, the outer before the inner."""
        self._starts = [span[0] for span in self._spans]

    def copy(self, begin: int, end: int, depth: int = 0) -> None:
        """Copy operations; the first reference to what is missing becomes what it refers to.

        Raises:
            ValueError: what is referred to cannot be told from what surrounds it.
        """
        position, index = begin, bisect_left(self._starts, begin)
        while index < len(self._spans) and self._starts[index] < end:
            start, stop, place, kind = self._spans[index]
            index += 1
            if kind is _PUT:
                self._missing.discard(place)
            elif (kind is _GET) == (place in self._missing):
                self.parts.append(self._data[position:start])
                if kind is _GET:
                    self._write_out(place, depth + 1)
                else:  # it stands already in what was written out before
                    self.parts.append(b"j" + struct.pack("<I", place))
                position, index = stop, bisect_left(self._starts, stop, index)
        self.parts.append(self._data[position:end])

    def _write_out(self, place: int, depth: int) -> None:
        _, put_end, item = self._walk.puts[place]
        if place in self._walk.changed_later or item.taken_from is not None or depth > _DEEPEST_NEST:
            raise ValueError(f"another part of it shares a value with {self._key!r}")
        self.copy(item.start, max(item.end, put_end), depth)


def _walk(data: bytes, key: str) -> _Walk:
    walk = _Walk()
    stack: list[Any] = []
    found = islice(pickletools.genops(data), _MOST_OPERATIONS + 1)
    operations = [(operation, argument, position or 0) for operation, argument, position in found]
    if len(operations) > _MOST_OPERATIONS:
        raise ValueError("it holds far more values than any model")
    ends = [position for _, _, position in operations[1:]] + [len(data)]
    root: _Item | None = None
    for (operation, argument, position), end in zip(operations, ends, strict=True):
        name = operation.name
        if name in _REFUSED or (name == "PROTO" and argument != 2):
            raise ValueError(f"it is not written the way torch does it ({name})")
        if name in _PUTS:
            if walk.puts.setdefault(int(argument or 0), (position, end, stack[-1]))[0] != position:
                raise ValueError("it is not written the way torch does it (a place is used twice)")
        elif name in _GETS:
            place = int(argument or 0)
            walk.gets.append(_Get(position, end, place))
            stack.append(_Item(position, end, walk.puts[place][2].text, place))
        elif name == "STOP":
            if len(stack) != 1 or stack[0] is not root:
                raise ValueError("it does not hold a plain dict")
        elif name == "MARK":
            stack.append(_MARK)
        else:
            taken = _take(stack, operation)
            if root is not None and taken and taken[0] is root:
                _look_for(key, taken[1:], position, walk)
            if name in _KEEP_FIRST:
                if taken[0].taken_from is not None:
                    walk.changed_later.add(taken[0].taken_from)
                taken[0].end = end
                stack.append(taken[0])
            elif operation.stack_after:
                text = argument if isinstance(argument, str) and name.endswith("UNICODE") else None
                stack.append(_Item(taken[0].start if taken else position, end, text))
                if root is None and name == "EMPTY_DICT" and len(stack) == 1:
                    root = stack[0]
    return walk


def _take(stack: list[Any], operation: pickletools.OpcodeInfo) -> list[_Item]:
    """Take what an operation takes from the stack, in order."""
    before: Sequence[Any] = operation.stack_before
    taken: list[_Item] = []
    count = len(before)
    if pickletools.markobject in before:
        while stack[-1] is not _MARK:
            taken.insert(0, stack.pop())
        stack.pop()
        count = before.index(pickletools.markobject)
    for _ in range(count):
        item = stack.pop()
        if item is _MARK:
            raise ValueError("its marks do not fit")
        taken.insert(0, item)
    return taken


def _look_for(key: str, items: list[_Item], end: int, walk: _Walk) -> None:
    """Among keys and values that are put into the top dict, find the wanted value's bounds."""
    for index in range(0, len(items) - 1, 2):
        if items[index].text == key:
            stop = items[index + 2].start if index + 2 < len(items) else end
            walk.value = (items[index + 1].start, stop)


def encode_value(value: Any, first_place: int) -> bytes:
    """Return a value, arrays and all, as operations of protocol 2 that use the memo only from a place on.

    Args:
        value: see `replace_value`.
        first_place: the first place in the memo that is free; those behind it are free too.

    Raises:
        ValueError: it holds something that a file must not hold.
    """
    if not _has_numpy(value):
        return encode_plain(value)
    data = pickle.dumps(_whole(value), protocol=2)
    operations = [(operation, argument, position or 0) for operation, argument, position in pickletools.genops(data)]
    parts: list[bytes] = []
    ends = [position for _, _, position in operations[1:]]
    for (operation, argument, position), end in zip(operations, ends, strict=False):
        if operation.name in _PUTS:
            parts.append(b"r" + struct.pack("<I", first_place + int(argument or 0)))
        elif operation.name in _GETS:
            parts.append(b"j" + struct.pack("<I", first_place + int(argument or 0)))
        elif operation.name != "PROTO":
            parts.append(data[position:end])
    return b"".join(parts)


def _has_numpy(value: Any) -> bool:
    """Tell whether there is an array or a number of numpy in a value.

    Raises:
        ValueError: there is one that is not made of numbers.
    """
    if isinstance(value, Mapping):
        return _has_numpy(list(value.values()))
    if isinstance(value, list | tuple):
        found = [_has_numpy(item) for item in value]  # all of them are looked at
        return any(found)
    numpy = sys.modules.get("numpy")  # who has an array has imported it
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return False
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > _LARGEST_NUMBER:
        raise ValueError(f"an array of {value.dtype} is not one of numbers that every program reads")
    return True


def _whole(value: Any) -> Any:
    """Return a value in which keys are texts, and arrays lie in the usual order of this machine."""
    if isinstance(value, Mapping):
        return {str(key): _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray):
        return numpy.array(value, dtype=value.dtype.newbyteorder("="), order="C", subok=False)
    if not isinstance(value, numpy.generic):
        encode_plain(value)  # refuses what is not plain
    return value


def encode_plain(value: Any) -> bytes:
    """Return a plain value as operations of protocol 2 that need and leave no memory.

    Raises:
        ValueError: it is of no plain type.
    """
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(encoded)) + encoded
    if isinstance(value, list | tuple):
        return b"](" + b"".join(encode_plain(item) for item in value) + b"e"
    if isinstance(value, Mapping):
        pairs = (encode_plain(str(key)) + encode_plain(item) for key, item in value.items())
        return b"}(" + b"".join(pairs) + b"u"
    raise ValueError(f"{type(value).__name__} is no plain value")
