"""Spends what it costs to make tensors and arrays of all that is wanted of a file, before any of it is made. Pure.

Whoever looks into a file surveys the same: so a conversion refuses what `inspect` calls too costly, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sda_daemon.torchfile.allowance import spend
from sda_daemon.torchfile.faults import Oversized
from sda_daemon.torchfile.globals import BYTES_FUNCTIONS, NameKind, kind_of_name, modern_name
from sda_daemon.torchfile.outlines import tensor_call
from sda_daemon.torchfile.stand_ins import LargeInteger, StandIn, StorageRef
from sda_daemon.torchfile.values import mapping_of, recorded_bytes

_ITEM_UNITS = 50
_HOLDER_UNITS = 150
_TENSOR_UNITS = 700
_MADE_UNITS = 300
_LEAVES = frozenset({type(None), bool, int, float, str, bytes, bytearray, StorageRef})


def survey(content: Any, left_out: Iterable[Any] = (), most_bytes: int = 0) -> None:
    """Spend what it costs to make all that a file holds.

    Args:
        content: as it was read.
        left_out: keys of the dict at the top whose values are not wanted.
        most_bytes: of its pickle; its arrays may not take more.

    Raises:
        Oversized: it costs more than a file of its size may.
    """
    top = mapping_of(content)
    skipped = {id(key) for key in left_out}
    begin = [content] if top is None else [item for key, item in top.items() if id(key) not in skipped]
    _Survey(most_bytes).look_at(begin)


class _Survey:
    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = self._bytes_left = most_bytes

    def look_at(self, begin: list[Any]) -> None:
        waiting: list[Any] = [begin]
        seen: set[int] = set()
        while waiting:
            value = waiting.pop()
            if value.__class__ is LargeInteger:
                spend(_MADE_UNITS)
                continue
            if value.__class__ in _LEAVES or (place := id(value)) in seen:
                continue
            seen.add(place)
            if isinstance(value, dict | list | tuple):
                spend(_HOLDER_UNITS + _ITEM_UNITS * len(value) + (_MADE_UNITS if isinstance(value, tuple) else 0))
                items = value.values() if isinstance(value, dict) else value
                waiting += [item for item in items if item.__class__ not in _LEAVES]
            elif isinstance(value, StandIn):
                spend(_HOLDER_UNITS + _MADE_UNITS)
                self._look_at_stand_in(value, waiting)

    def _look_at_stand_in(self, value: StandIn, waiting: list[Any]) -> None:
        if tensor_call(value) is not None:
            spend(_TENSOR_UNITS)
            return
        name = modern_name(value.foreign_name)
        if name in BYTES_FUNCTIONS or kind_of_name(name) is NameKind.NUMPY:
            self._bytes_left -= recorded_bytes(value)
            if self._bytes_left < 0:
                raise Oversized(f"its arrays share bytes, and would take more than the {self._most_bytes} that it has")
        waiting += [held for held in (mapping_of(value), value.content) if held is not None][:1]
