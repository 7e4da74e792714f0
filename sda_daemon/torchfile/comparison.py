"""Tells whether two contents of torch files are the same, stand-ins and all. Pure."""

from __future__ import annotations

import math
from typing import Any

from sda_daemon.torchfile.stand_ins import StandIn, StorageRef


def is_same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal, in order and in type; what holds itself, or is shared, is looked at once.

    NaN is the same as NaN, a tuple as a tuple with the same items, an array of numpy as one of the same type and bytes.
    """
    waiting, seen = [(left, right)], set()
    while waiting:
        one, other = waiting.pop()
        if one is other or (id(one), id(other)) in seen:
            continue
        inner = _inner(one, other)
        if inner is None:
            return False
        if inner:
            seen.add((id(one), id(other)))
            waiting += inner
    return True


def _inner(one: Any, other: Any) -> list[tuple[Any, Any]] | None:
    """Return what must be the same, too; None if the two differ already."""
    if isinstance(one, type) or isinstance(other, type):
        names = getattr(one, "foreign_name", one), getattr(other, "foreign_name", other)
        return [] if names[0] == names[1] else None
    if isinstance(one, StandIn) and isinstance(other, StandIn):
        parts = [(one.args, other.args), (one.state, other.state), (one.content, other.content)]
        return parts if one.foreign_name == other.foreign_name else None
    if isinstance(one, StorageRef) and isinstance(other, StorageRef):
        fields = [(getattr(one, name), getattr(other, name)) for name in StorageRef.__slots__]
        return [] if all(mine == theirs for mine, theirs in fields) else None
    if isinstance(one, dict) and isinstance(other, dict):
        return (
            [*zip(one, other, strict=True), *zip(one.values(), other.values(), strict=True)]
            if len(one) == len(other)
            else None
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        is_alike = len(one) == len(other) and isinstance(one, list) == isinstance(other, list)
        return list(zip(one, other, strict=True)) if is_alike else None
    if isinstance(one, float) and isinstance(other, float):  # also such as are only the same as themselves
        return [] if float(one) == float(other) or (math.isnan(one) and math.isnan(other)) else None
    if isinstance(one, int) and isinstance(other, int):
        return [] if isinstance(one, bool) == isinstance(other, bool) and not one - other else None
    if type(one) is not type(other):
        return None
    if type(one).__module__ == "numpy" and hasattr(one, "tobytes"):  # arrays are compared one by one by `==`
        is_alike = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        return [] if is_alike else None
    return [] if one == other else None
