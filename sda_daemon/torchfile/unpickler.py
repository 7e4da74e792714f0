"""Reads the pickles inside torch files without torch or numpy, into values and descriptions only. Pure.

Every class and function that a pickle names becomes an inert stand-in; tensors and arrays are recognised
by what their stand-ins recorded. Nothing is imported, nothing is called.
"""

from __future__ import annotations

import io
import math
import pickle
import reprlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sda_daemon.torchfile.globals import EMPTY_BYTES, modern_name
from sda_daemon.torchfile.plain import StandIn, stand_in_class

STORAGE_TYPES: Mapping[str, tuple[str, int]] = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
}
"""Class of a storage, to the name of its elements' type and their size in bytes."""
TENSOR_FUNCTION = "torch._utils._rebuild_tensor_v2"
"""What pickles call to make a tensor, since 2018."""
_TENSOR_FUNCTIONS = (TENSOR_FUNCTION, "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v3")
PARAMETER_FUNCTIONS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_ARRAY_FORMATS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I",
                  "u2": "H", "u1": "B", "b1": "?"}  # fmt: skip
_MAX_ARRAY_VALUES = 1_000_000
_MOST_DIMENSIONS = 32
_LARGEST_SIZE = 2**63
_LONGEST_NAME = 1000
_MOST_NAMES = 10_000
"""Names in one pickle; each becomes a class, which takes hundreds of times as much memory as its name."""


class ItemsOnlyDict(dict[str, Any]):
    """An OrderedDict of which only the items are kept: attributes from a pickle could shadow methods."""

    def __init__(self) -> None:
        """Start empty, as in every pickle: made from another dict, a few bytes could ask for megabytes each time."""

    def __setstate__(self, state: Any) -> None:
        pass


class InertUnpickler(pickle.Unpickler):
    """Builds plain containers; every class becomes an inert stand-in, every storage a placeholder.

    Walk over the pickle with `outline_pickle` first: that bounds the memory that it can ask for.

    Attributes:
        names: that the pickle asked for so far, as `module.name`, also those that it put together while it was loaded.
    """

    def __init__(self, data: bytes) -> None:
        self.names: set[str] = set()
        # Buffered, because from a plain BytesIO the unpickler takes each operation by a call of its own.
        super().__init__(io.BufferedReader(io.BytesIO(data), max(len(data), 1)))

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for whatever is named; nothing is imported.

        Raises:
            ValueError: a name longer than any honest one, or too many of them.
        """
        if len(module) + len(name) > _LONGEST_NAME or len(self.names) > _MOST_NAMES:
            raise ValueError("its names are too long or too many")
        full_name = f"{module}.{name}"
        self.names.add(full_name)
        return ItemsOnlyDict if full_name == "collections.OrderedDict" else stand_in_class(full_name)

    def persistent_load(self, pid: Any) -> Any:
        """Return what names a tensor's storage: a tuple. To make one of text, a few bytes could ask for megabytes.

        Raises:
            ValueError: something else names it.
        """
        if type(pid) is not tuple:
            raise ValueError("a storage's name is no tuple")
        return pid


@dataclass(frozen=True, slots=True)
class TensorOutline:
    """What a pickle says of a tensor: element type, shape, and the bytes that its elements take."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def tensor_outline(value: Any) -> TensorOutline | None:
    """Return the outline of a tensor's stand-in, None for anything else."""
    if isinstance(value, StandIn) and value.foreign_name in PARAMETER_FUNCTIONS and value.args:
        value = value.args[0]
    if not isinstance(value, StandIn):
        return None
    if value.foreign_name not in _TENSOR_FUNCTIONS or len(value.args) < 3:
        return None
    shape = value.args[2]
    if isinstance(shape, StandIn) and shape.foreign_name == "torch.Size" and shape.args:
        shape = shape.args[0]
    if not _is_shape(shape):
        return None
    dtype, width = _storage_type(value.args[0])
    return TensorOutline(dtype, shape, math.prod(shape) * width)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= _MOST_DIMENSIONS
        and all(isinstance(size, int) and 0 <= size < _LARGEST_SIZE for size in value)
    )


def _storage_type(storage: Any) -> tuple[str, int]:
    """Return name and width of the elements of a storage, which is named by a tuple."""
    if isinstance(storage, tuple) and len(storage) > 1:
        name = str(getattr(storage[1], "foreign_name", "")).rpartition(".")[2]
        return STORAGE_TYPES.get(name, (name.removesuffix("Storage").lower() or "unknown", 1))
    return "unknown", 1


def array_values(value: Any) -> Any:
    """Return the values of a numpy array's stand-in as nested lists, of a scalar's as a number; else None.

    Only arrays of numbers, only as many values as the recorded bytes really hold.
    """
    if not isinstance(value, StandIn):
        return None
    function = value.foreign_name.rpartition(".")[2]
    if not value.foreign_name.startswith("numpy"):
        return None
    if function == "scalar" and len(value.args) == 2:
        numbers = _numbers(value.args[0], as_bytes(value.args[1]))
        return numbers[0] if numbers and len(numbers) == 1 else None
    state = value.state
    if function != "_reconstruct" or not isinstance(state, tuple) or len(state) != 5:
        return None
    shape, is_fortran = state[1], state[3]
    if not _is_shape(shape) or math.prod(max(size, 1) for size in shape) > _MAX_ARRAY_VALUES:
        return None  # also without elements, a row of ten million of them is long
    flat = _numbers(state[2], as_bytes(state[4]))
    if flat is None or len(flat) != math.prod(shape) or (is_fortran and len(shape) > 1):
        return None
    return _nested(flat, shape)


def _numbers(dtype: Any, data: bytes | None) -> list[Any] | None:
    if data is None or not isinstance(dtype, StandIn) or not dtype.args:
        return None
    code = _ARRAY_FORMATS.get(str(dtype.args[0]).lstrip("<>|="))
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    if code is None or order not in ("<", ">", "|", "="):
        return None
    width = struct.calcsize("=" + code)
    count = len(data) // width
    if count > _MAX_ARRAY_VALUES or count * width != len(data):
        return None
    return list(struct.unpack(f"{'>' if order == '>' else '<'}{count}{code}", data))


def as_bytes(value: Any) -> bytes | None:
    """Return bytes; pickles of protocol 2 write them as text with the name of an encoding."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, StandIn) and not value.args and modern_name(value.foreign_name) == EMPTY_BYTES:
        return b""
    if isinstance(value, StandIn) and value.foreign_name == "_codecs.encode" and len(value.args) == 2:
        text, encoding = value.args
        if isinstance(text, str) and encoding in ("latin1", "latin-1"):
            try:
                return text.encode("latin1")
            except UnicodeEncodeError:
                return None
    return None


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [_nested(flat[index * step : (index + 1) * step], shape[1:]) for index in range(shape[0])]


def plain_analysis(value: Any) -> dict[str, Any] | None:
    """Return a latent analysis as plain lists and numbers, None where there is none.

    Of more than a million values in all, the rest is None: arrays that are named in many places can be small in a file.
    """
    return _PlainAnalysis().of(value) if isinstance(value, Mapping) else None


class _PlainAnalysis:
    def __init__(self) -> None:
        self._left = _MAX_ARRAY_VALUES

    def of(self, analysis: Mapping[Any, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in analysis.items():
            plain[_text(key)] = self._dict(item) if isinstance(item, Mapping) else self._row(item)
        return plain

    def _dict(self, value: Mapping[Any, Any]) -> dict[str, Any] | None:
        self._left -= len(value)
        return {_text(name): self._row(row) for name, row in value.items()} if self._left >= 0 else None

    def _row(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return self._item(value)
        self._left -= len(value)
        if self._left < 0:
            return None
        return [self._item(item) if not isinstance(item, list | tuple) else None for item in value]

    def _item(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        self._left -= _recorded_bytes(value) // 8
        if self._left < 0:
            return None
        values = array_values(value)
        self._left -= _count(values)
        return values if self._left >= 0 else None


def _recorded_bytes(value: Any) -> int:
    """Return how many bytes would be looked at to make an array or a number."""
    if not isinstance(value, StandIn):
        return 0
    has_state = isinstance(value.state, tuple) and len(value.state) == 5
    raw = value.state[4] if has_state else (value.args or (None,))[-1]
    if isinstance(raw, StandIn) and raw.args:
        raw = raw.args[0]
    return len(raw) if isinstance(raw, str | bytes) else 0


def _count(values: Any) -> int:
    return sum(map(_count, values)) if isinstance(values, list) else 1


def _text(key: Any) -> str:
    return str(key) if isinstance(key, str | bool | float) else reprlib.repr(key)
