"""What an inert unpickler builds in place of classes, functions, tuples and large integers. Nothing of it can act.

Stand-ins record what the pickle wanted to do with a class: the arguments of its call, its state, and what was put in.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from sda_daemon.torchfile.allowance import KEY_UNITS, spend

FEW_ARGUMENTS = 16
"""Calls with more are charged for them: the row is copied for each."""
_ARGUMENT_UNITS = 100


class StandIn:
    """Takes the place of a class or function that is not installed (or not trusted); does nothing at all.

    Subclasses are made per foreign name with `stand_in_class`.

    Attributes:
        foreign_name: what it stands for, as `package.module.Class`.
        args: what it was called with.
        state: what the pickle wanted it to be, None if nothing.
        content: a dict or list of what was put into it, None if nothing.
    """

    __slots__ = ("args", "content", "state")
    foreign_name: ClassVar[str] = ""

    args: tuple[Any, ...]
    state: Any
    content: dict[Any, Any] | list[Any] | None

    def __new__(cls, *args: Any, **keywords: Any) -> StandIn:  # noqa: D102 - pickles create by __new__ without __init__
        self = object.__new__(cls)
        if len(args) + len(keywords) > FEW_ARGUMENTS:
            spend(_ARGUMENT_UNITS * (len(args) + len(keywords)))
        self.args = args
        self.state = keywords or None
        self.content = None
        return self

    def __call__(self, *args: Any, **keywords: Any) -> StandIn:
        """Stand for the result of a call of what this stands for."""
        return _Result(self, *args, **keywords)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(self.content, dict):
            self.content = {}
        self.content[as_key(key)] = value

    def extend(self, items: Any) -> None:
        """Take what a foreign list or set is filled with."""
        if not isinstance(self.content, list):
            self.content = []
        self.content += items

    def append(self, item: Any) -> None:
        """Likewise, one by one."""
        self.extend([item])

    add = append

    def __repr__(self) -> str:
        return f"<stand-in for {self.foreign_name}>"


class _Result(StandIn):
    """What a call of something foreign gives."""

    __slots__ = ()
    foreign_name = "a foreign call"


@lru_cache(maxsize=1024)
def stand_in_class(full_name: str) -> type[StandIn]:
    """Return the inert class that stands for the foreign name `package.module.Class`."""
    return type(full_name.rpartition(".")[2], (StandIn,), {"foreign_name": full_name, "__slots__": ()})


@lru_cache(maxsize=1024)
def attribute_class(owner: str, name: str) -> type[StandIn]:
    """Return the inert class that stands for an attribute of a foreign class.

    It is a class because it may be one (nested in another), and as a value it may be the member of an enum.
    """
    namespace = {"foreign_name": f"{owner}.{name}", "__slots__": (), "is_attribute": True}
    return type(name, (StandIn,), namespace)


def member_name(value: Any) -> str:
    """Return the name of an attribute that stands as a value, as members of enums do; empty for anything else."""
    is_member = isinstance(value, type) and issubclass(value, StandIn) and getattr(value, "is_attribute", False)
    return value.foreign_name.rpartition(".")[2] if is_member else ""


class StorageRef:
    """What a pickle says of a tensor's storage.

    Attributes:
        kind: name of its class, such as `FloatStorage`.
        key: which one of the file.
        count: of its elements (of bytes in an untyped one).
        offset: of the first element, where it is part of another one (in files from before torch 1.6).
    """

    __slots__ = ("count", "key", "kind", "offset")

    def __init__(self, kind: str, key: str, count: int, offset: int = 0) -> None:
        self.kind, self.key, self.count, self.offset = kind, key, count, offset


class ByIdentity:
    """Hashed and compared by what it is, not by what is in it: costs nothing, whatever that is."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class TupleValue(ByIdentity, tuple[Any, ...]):
    """A tuple of a pickle (or a frozen set)."""

    __slots__ = ()


class LargeInteger(ByIdentity, int):
    """An integer of 64 bits or more, or a key that is not small."""

    __slots__ = ()


class FloatKey(ByIdentity, float):
    """A float as a key."""

    __slots__ = ()


_SMALL = range(2**12)
"""Numbers of which there are too few to be chosen."""


def as_key(key: Any) -> Any:
    """Return a key of a dict, with a hash that nobody can choose; what it costs is spent.

    Thousands of numbers can be chosen so that each takes longer to find a place for than the one before: all but small
    ones are hashed by what they are. Texts and bytes have hashes that nobody knows.

    Raises:
        Oversized: there are too many keys that are no texts.
        ValueError: it is nothing that pickles have as a key.
    """
    kind = key.__class__
    if kind is str:
        return key
    spend(KEY_UNITS)
    if kind is int:
        return key if key in _SMALL else LargeInteger(key)
    if kind is float:
        return FloatKey(key)
    if kind.__hash__ is object.__hash__ or kind in (bytes, bool, type(None)):
        return key
    if kind is tuple:
        return TupleValue(key)
    raise ValueError("a key that is no value")
