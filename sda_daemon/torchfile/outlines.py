"""What a pickle says of its tensors, without their bytes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sda_daemon.torchfile.allowance import spend
from sda_daemon.torchfile.globals import PARAMETER_FUNCTIONS, SUBCLASS_FUNCTIONS, TENSOR_FUNCTIONS
from sda_daemon.torchfile.stand_ins import StandIn, StorageRef
from sda_daemon.torchfile.values import MOST_DIMENSIONS, is_shape

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
    "UntypedStorage": ("uint8", 1),
}
"""Class of a storage, to the name of its elements' type and their size in bytes."""
OTHER_TYPES: Mapping[str, int] = {
    **dict(STORAGE_TYPES.values()),
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "complex32": 4,
}
"""Name of a type, to its size in bytes."""
WITH_TYPE = "torch._utils._rebuild_tensor_v3"
_MOST_WRAPPERS = 4
_WRAPPER_UNITS = 200


@dataclass(frozen=True, slots=True)
class TensorOutline:
    """What a pickle says of a tensor: element type, shape, and the bytes that its elements take."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def tensor_call(value: Any) -> tuple[str, tuple[Any, ...]] | None:
    """Return the function that makes a tensor, and what it is called with; None for what is no tensor.

    A parameter and a tensor of a class derived from torch's own are the tensors in them.
    """
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(value, StandIn):
            return None
        name, args = value.foreign_name, value.args
        if name in TENSOR_FUNCTIONS:
            return name, args
        if name in PARAMETER_FUNCTIONS and args:
            value = args[0]
        elif name in SUBCLASS_FUNCTIONS and len(args) >= 3 and isinstance(args[2], tuple):
            function = args[0]
            if not isinstance(function, type) or not issubclass(function, StandIn) or len(args[2]) > 16:
                return None
            spend(_WRAPPER_UNITS)
            value = function(*args[2])
        else:
            return None
    return None


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return a tensor's shape, also where it is a `torch.Size`; None for what is none."""
    if isinstance(value, StandIn) and value.foreign_name == "torch.Size" and value.args:
        value = value.args[0]
    if isinstance(value, list) and len(value) <= MOST_DIMENSIONS:
        value = tuple(value)
    return tuple(int(size) for size in value) if is_shape(value) else None


def tensor_outline(value: Any) -> TensorOutline | None:
    """Return the outline of a tensor's stand-in, None for anything else."""
    call = tensor_call(value)
    if call is None or len(call[1]) < 3:
        return None
    name, args = call
    shape = shape_of(args[2])
    if shape is None:
        return None
    dtype, width = element_type(name, args)
    return TensorOutline(dtype, shape, math.prod(shape) * width)


def element_type(function: str, args: tuple[Any, ...]) -> tuple[str, int]:
    """Return the name of a tensor's elements' type, and how many bytes each of them takes."""
    if function == WITH_TYPE and len(args) > 6:
        kind = args[6]
        name = kind.foreign_name.rpartition(".")[2] if isinstance(kind, type) and issubclass(kind, StandIn) else ""
        return name or "unknown", OTHER_TYPES.get(name, 1)
    storage = args[0]
    if isinstance(storage, StorageRef):
        short = storage.kind.removesuffix("Storage").lower()
        return STORAGE_TYPES.get(storage.kind, (short or "unknown", 1))
    return "unknown", 1
