"""Reduces what a checkpoint's dicts contain to plain values that any program can open.

Pure: knows nothing of torch. Foreign classes arrive as inert stand-ins (`StandIn`), which only
recorded what the pickle wanted to do with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

MAX_DEPTH = 32
"""Deepest nesting kept; real configs have two or three levels."""
MAX_VALUES = 100_000
"""Most values kept: a few bytes of pickle, in which lists hold other lists many times, can mean billions."""


class StandIn:
    """Takes the place of a class that is not installed (or not trusted); does nothing at all.

    Instances record constructor arguments and state. Subclasses are made per foreign name with
    `stand_in_class`.
    """

    foreign_name: ClassVar[str] = ""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

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


def stand_in_class(full_name: str) -> type[StandIn]:
    """Return a new inert class that stands for the foreign name `package.module.Class`."""
    return type(full_name.rpartition(".")[2], (StandIn,), {"foreign_name": full_name})


def plain_value(
    value: Any,
    dropped: Callable[[str, str], None],
    where: str = "",
    depth: int = 0,
    budget: list[int] | None = None,
) -> Any:
    """Return `value` made of None, bool, int, float, str, list and dict only.

    An enum stand-in (one plain constructor argument, no state) becomes its value; path stand-ins become
    strings; whatever else is foreign is dropped and `dropped(where, description)` is called for it.
    Tuples and sets become lists. Nesting beyond `MAX_DEPTH` and values beyond `MAX_VALUES` are dropped.
    """
    left = [MAX_VALUES] if budget is None else budget
    left[0] -= 1
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth >= MAX_DEPTH or left[0] <= 0:
        dropped(where, "nested too deeply" if depth >= MAX_DEPTH else "too many values")
        return None
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, item in value.items():
            path = f"{where}.{key}" if where else str(key)
            if not isinstance(key, str | int | float | bool):
                dropped(path, f"key of type {type(key).__name__}")
            elif is_plain(item):
                kept[str(key)] = plain_value(item, dropped, path, depth + 1, left)
            else:
                dropped(path, describe_foreign(item))
        return kept
    if isinstance(value, list | tuple | set | frozenset):
        items: list[Any] = []
        for index, item in enumerate(value):
            if is_plain(item):
                items.append(plain_value(item, dropped, f"{where}[{index}]", depth + 1, left))
            else:
                dropped(f"{where}[{index}]", describe_foreign(item))
        return items
    if isinstance(value, StandIn):
        return _stand_in_value(value)
    return value.item()


def is_plain(value: Any) -> bool:
    """Tell whether `plain_value` can represent `value` itself (not looking inside containers)."""
    if isinstance(value, StandIn):
        return _stand_in_value(value) is not None
    if value is None or isinstance(value, bool | int | float | str | dict | list | tuple | set | frozenset):
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
    if value.state is None and len(value.args) == 1 and isinstance(value.args[0], str | int | float | bool):
        return value.args[0]
    return None
