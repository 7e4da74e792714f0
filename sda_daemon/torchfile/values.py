"""Numbers, arrays and dicts out of what an inert unpickler built, without numpy. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from sda_daemon.torchfile.allowance import spend
from sda_daemon.torchfile.faults import Oversized
from sda_daemon.torchfile.globals import EMPTY_BYTES, ENCODE, LATIN_1, modern_name
from sda_daemon.torchfile.stand_ins import StandIn
from sda_daemon.wording import quoted

_ARRAY_FORMATS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I",
                  "u2": "H", "u1": "B", "b1": "?"}  # fmt: skip
_MOST_VALUES = 1_000_000
MOST_DIMENSIONS = 32
_MOST_PROXIES = 8
_ARRAY_UNITS = 300
_ITEM_UNITS = 150
_NUMBER_UNITS = 16
_LIST_UNITS = 100
_LARGEST_SIZE = 2**63
_LONGEST_CODE = 8
_NAMESPACES = frozenset({"types.SimpleNamespace", "argparse.Namespace"})


def mapping_of(value: Any) -> dict[Any, Any] | None:
    """Return the items of a dict, also of a foreign class that is one; None for anything else."""
    for _ in range(_MOST_PROXIES):
        if isinstance(value, dict):
            return value
        if not isinstance(value, StandIn):
            return None
        if value.foreign_name.startswith("omegaconf."):
            return _omega_dict(value)
        if isinstance(value.content, dict):
            return value.content
        if modern_name(value.foreign_name) != "types.MappingProxyType" or not value.args:
            return None
        value = value.args[0]
    return None


def fields_of(value: Any) -> dict[Any, Any] | None:
    """Return the items of a dict, or the attributes of an object, such as a dataclass; None for anything else."""
    items = mapping_of(value)
    if items is not None or not isinstance(value, StandIn):
        return items
    return value.state if isinstance(value.state, dict) else None


def is_namespace(value: Any) -> bool:
    """Tell whether something is a namespace of the standard library: a dict that is written with dots."""
    return isinstance(value, StandIn) and modern_name(value.foreign_name) in _NAMESPACES


def _omega_dict(value: StandIn) -> dict[Any, Any] | None:
    """OmegaConf keeps a dict of nodes, each of which keeps its value."""
    content = value.state.get("_content") if isinstance(value.state, dict) else None
    return content if isinstance(content, dict) else None


def omega_value(value: Any) -> Any:
    """Return what an OmegaConf container or node holds: a dict, a list, a value; anything else as it is."""
    if not isinstance(value, StandIn) or not value.foreign_name.startswith("omegaconf."):
        return value
    if not isinstance(value.state, dict):
        return value
    return value.state.get("_content", value.state.get("_val", value))


def list_of(value: Any) -> list[Any] | tuple[Any, ...] | None:
    """Return the items of a list, a tuple, a set or a deque, None for anything else."""
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, StandIn):
        return None
    name = modern_name(value.foreign_name)
    if name in ("builtins.set", "builtins.frozenset", "collections.deque"):
        given = value.args[0] if value.args else []
        spend(sum(len(held) for held in (given, value.content) if isinstance(held, list | tuple)))
        items = [*given] if isinstance(given, list | tuple) else []
        return items + value.content if isinstance(value.content, list) else items
    return None


def as_bytes(value: Any) -> bytes | None:
    """Return bytes; pickles of protocol 2 write them as text with the name of an encoding."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, StandIn):
        return None
    name = modern_name(value.foreign_name)
    if name in (EMPTY_BYTES, "builtins.bytearray") and len(value.args) <= 1:
        return as_bytes(value.args[0]) if value.args else b""
    if name == ENCODE and len(value.args) == 2:
        text, encoding = value.args
        if isinstance(text, str) and encoding in LATIN_1:
            spend(len(text))
            try:
                return text.encode("latin1")
            except UnicodeEncodeError:
                return None
    return None


def is_shape(value: Any) -> bool:
    """Tell whether something is the shape of an array or a tensor: a tuple of sizes."""
    return (
        isinstance(value, tuple)
        and len(value) <= MOST_DIMENSIONS
        and all(isinstance(size, int) and 0 <= size < _LARGEST_SIZE for size in value)
    )


def array_parts(value: StandIn) -> tuple[Any, Any, bool, Any] | None:
    """Return shape, type, whether it lies by columns, and bytes of an array's stand-in, unchecked; None for others.

    They are the state that `numpy.ndarray.__setstate__` would take behind its version, or what `_frombuffer` is called
    with.
    """
    function = value.foreign_name.rpartition(".")[2]
    if function == "_frombuffer" and len(value.args) == 4:
        data, dtype, shape, order = value.args
        return shape, dtype, order == "F", data
    if function == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
        _version, shape, dtype, is_fortran, data = value.state
        return shape, dtype, is_fortran, data
    return None


def array_values(value: Any) -> Any:
    """Return the values of a numpy array's stand-in as nested lists, of a scalar's as a number or a text.

    None for anything else. Only arrays of numbers, only as many values as the recorded bytes really hold.
    """
    if not isinstance(value, StandIn) or not value.foreign_name.startswith("numpy"):
        return None
    spend(_ARRAY_UNITS)
    function = value.foreign_name.rpartition(".")[2]
    if function == "scalar" and len(value.args) == 2:
        text = _text_of(value.args[0], as_bytes(value.args[1]))
        if text is not None:
            return text
        numbers = _numbers(value.args[0], as_bytes(value.args[1]))
        return numbers[0] if numbers and len(numbers) == 1 else None
    parts = array_parts(value)
    if parts is None:
        return None
    shape, dtype, is_fortran, data = parts
    if not is_shape(shape) or math.prod(max(size, 1) for size in shape) > _MOST_VALUES:
        return None  # also without elements, a row of ten million of them is long
    spend(_LIST_UNITS * sum(math.prod(shape[:count]) for count in range(len(shape))))
    flat = _numbers(dtype, as_bytes(data))
    if flat is None or len(flat) != math.prod(shape):
        return None
    if is_fortran and len(shape) > 1:
        if len(shape) != 2:
            return None
        rows, columns = shape
        return [[flat[row + column * rows] for column in range(columns)] for row in range(rows)]
    return _nested(flat, tuple(shape))


def _text_of(dtype: Any, data: bytes | None) -> str | None:
    """Return numpy's own text, which is four bytes a character."""
    if data is None or not _code_of(dtype).startswith("U"):
        return None
    spend(len(data))
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return data.decode("utf-32-be" if order == ">" else "utf-32-le", "replace").rstrip("\0")


def _code_of(dtype: Any) -> str:
    """Return what a dtype was called with, such as `f8`; empty for anything else."""
    code = dtype.args[0] if isinstance(dtype, StandIn) and dtype.args else ""
    return code if isinstance(code, str) else ""


def number_of(value: Any) -> int | float | bool | None:
    """Return a number, also where it was written as numpy's scalar or as an array of one element; else None."""
    if isinstance(value, bool | int | float):
        return int(value) if type(value) not in (bool, int, float) else value
    if isinstance(value, StandIn) and _is_row(value):
        return None
    found = array_values(value)
    for _ in range(MOST_DIMENSIONS):
        if not isinstance(found, list) or len(found) != 1:
            break
        found = found[0]
    return found if isinstance(found, bool | int | float) else None


def _is_row(value: StandIn) -> bool:
    """Tell whether an array has not just one element."""
    parts = array_parts(value)
    return parts is not None and is_shape(parts[0]) and math.prod(parts[0]) != 1


def _numbers(dtype: Any, data: bytes | None) -> list[Any] | None:
    if data is None or not isinstance(dtype, StandIn):
        return None
    code = _ARRAY_FORMATS.get(_code_of(dtype)[:_LONGEST_CODE].lstrip("<>|="))
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    if code is None or order not in ("<", ">", "|", "="):
        return None
    width = struct.calcsize("=" + code)
    count = len(data) // width
    if count > _MOST_VALUES or count * width != len(data):
        return None
    spend(_NUMBER_UNITS * count)
    return list(struct.unpack(f"{'>' if order == '>' else '<'}{count}{code}", data))


def _nested(flat: list[Any], shape: tuple[int, ...], begin: int = 0) -> Any:
    """Return the values of an array from one of them on, as lists of its shape."""
    if not shape:
        return flat[begin]
    if len(shape) == 1:
        return flat[begin : begin + shape[0]]
    step = math.prod(shape[1:])
    return [_nested(flat, shape[1:], begin + index * step) for index in range(shape[0])]


def plain_analysis(value: Any) -> dict[str, Any] | None:
    """Return a latent analysis as plain lists and numbers, None where there is none.

    Of more than a million values in all, the rest is None: arrays that are named in many places can be small in a file.
    """
    analysis = mapping_of(value)
    return None if analysis is None else _PlainAnalysis().of(analysis)


class _PlainAnalysis:
    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def of(self, analysis: Mapping[Any, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in analysis.items():
            inner = mapping_of(item)
            plain[_text(key)] = self._row(item) if inner is None else self._dict(inner)
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
            self._left -= len(value) // 8 if isinstance(value, str) else 0
            return value if self._left >= 0 else None
        self._left -= recorded_bytes(value) // 8
        if self._left < 0:
            return None
        try:
            spend(_ITEM_UNITS)
            values = array_values(value)
        except Oversized:
            self._left = -1
            return None
        self._left -= _count(values)
        return values if self._left >= 0 else None


def recorded_bytes(value: Any) -> int:
    """Return how many bytes would be looked at to make an array or a number."""
    if not isinstance(value, StandIn):
        return 0
    has_state = isinstance(value.state, tuple) and len(value.state) == 5
    raws = (value.state[4],) if has_state else value.args[:2]
    total = 0
    for item in raws:
        raw = item.args[0] if isinstance(item, StandIn) and item.args else item
        total += len(raw) if isinstance(raw, str | bytes | bytearray) else 0
    return total


def _count(values: Any) -> int:
    return sum(map(_count, values)) if isinstance(values, list) else 1


def _text(key: Any) -> str:
    return str(key) if isinstance(key, str | bool | float) else quoted(key)
