"""Reduces what a checkpoint's dicts contain to plain values that any program can open.

Pure: knows nothing of torch. Foreign classes arrive as inert stand-ins (`StandIn`), which only
recorded what the pickle wanted to do with them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

MAX_DEPTH = 32
"""Deepest nesting kept; real configs have two or three levels."""
_VALUE_MODULES = ("decimal", "fractions")
_LARGEST_INTEGER = 2**63
MAX_VALUES = 100_000
"""Most values kept; real configs have some thirty."""


class StandIn:
    """Takes the place of a class that is not installed (or not trusted); does nothing at all.

    Instances record constructor arguments and state. Subclasses are made per foreign name with
    `stand_in_class`.
    """

    foreign_name: ClassVar[str] = ""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> StandIn:  # noqa: D102 - pickles create by __new__ without __init__
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Foreign dict classes fill themselves this way; their content is not kept."""

    def extend(self, items: Any) -> None:
        """Foreign list classes fill themselves this way; their content is not kept."""

    append = add = extend

    def __repr__(self) -> str:
        return f"<stand-in for {self.foreign_name}>"


@lru_cache(maxsize=1024)
def stand_in_class(full_name: str) -> type[StandIn]:
    """Return the inert class that stands for the foreign name `package.module.Class`."""
    return type(full_name.rpartition(".")[2], (StandIn,), {"foreign_name": full_name})


def plain_value(value: Any, dropped: Callable[[str, str], None], where: str = "") -> Any:
    """Return `value` made of None, bool, int, float, str, list and dict only.

    An enum stand-in (one plain constructor argument, no state) becomes its value; path stand-ins become
    strings; whatever else is foreign is dropped and `dropped(where, description)` is called for it.
    Tuples and sets become lists. Nesting beyond `MAX_DEPTH` and values beyond the first `MAX_VALUES` are
    dropped: lists that share their items can be small in a file and endless when written out.
    """
    return _Reduction(dropped).reduce(value, where, 0)


class _Reduction:
    def __init__(self, dropped: Callable[[str, str], None]) -> None:
        self.dropped = dropped
        self.left = MAX_VALUES
        self.told = False

    def reduce(self, value: Any, where: str, depth: int) -> Any:
        self.left -= 1
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, StandIn):
            return _stand_in_value(value)
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return value.item()
        if depth >= MAX_DEPTH:
            self.dropped(where, "nested too deeply")
            return None
        if isinstance(value, dict):
            return self._reduce_dict(value, where, depth)
        items: list[Any] = []
        for index, item in enumerate(value):
            if self._keeps(item, place := f"{where}[{index}]"):
                items.append(self.reduce(item, place, depth + 1))
            if self._is_full(where):
                break
        return items

    def _reduce_dict(self, value: dict[Any, Any], where: str, depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str | int | float | bool) or not is_plain(key):
                self.dropped(where, f"key of type {type(key).__name__}")
            elif self._keeps(item, place := f"{where}.{key}" if where else str(key)):
                kept[str(key)] = self.reduce(item, place, depth + 1)
            if self._is_full(where):
                break
        return kept

    def _is_full(self, where: str) -> bool:
        if self.left <= 0 and not self.told:
            self.told = True
            self.dropped(where, "too many values")
        return self.left <= 0

    def _keeps(self, item: Any, where: str) -> bool:
        if not is_plain(item):
            self.dropped(where, describe_foreign(item))
            return False
        return True


def is_plain(value: Any) -> bool:
    """Tell whether `plain_value` can represent `value` itself (not looking inside containers)."""
    if isinstance(value, StandIn):
        return _stand_in_value(value) is not None
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INTEGER
    if value is None or isinstance(value, float | str | dict | list | tuple | set | frozenset):
        return True
    return type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "O") in "biufU"


def describe_foreign(value: Any) -> str:
    """Return a short name for something that plain files cannot hold."""
    if isinstance(value, StandIn):
        return value.foreign_name
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _stand_in_value(value: StandIn) -> Any:
    if value.foreign_name.startswith("pathlib."):
        parts = [part for part in value.args if isinstance(part, str)]
        return "/".join(parts).replace("//", "/") if parts else None
    root = value.foreign_name.partition(".")[0]
    if root not in _VALUE_MODULES and (root in sys.stdlib_module_names or root == "__builtin__"):
        return None  # a call of a function, which no value is
    if value.state is None and len(value.args) == 1 and isinstance(value.args[0], str | int | float | bool):
        return value.args[0]
    return None
