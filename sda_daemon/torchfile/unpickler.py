"""Loads pickles without torch or numpy, into values and stand-ins only. Nothing is imported, nothing is called.

Every class and function that a pickle names becomes an inert stand-in. A name is judged when it is asked for, and where
that depends on what it is called with, when it is called.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sda_daemon.garbage import without_garbage_collection
from sda_daemon.torchfile import globals as names
from sda_daemon.torchfile.allowance import CLASS_UNITS, begin_file, spend
from sda_daemon.torchfile.faults import Damaged, Fault, Oversized, Unsafe
from sda_daemon.torchfile.globals import LATIN_1, NameKind, kind_of_name, modern_name
from sda_daemon.torchfile.pickles import PickleTooCostlyError, Walk, check_mentions
from sda_daemon.torchfile.resident import metered
from sda_daemon.torchfile.stand_ins import (
    FEW_ARGUMENTS,
    LargeInteger,
    StandIn,
    StorageRef,
    TupleValue,
    as_key,
    attribute_class,
    stand_in_class,
)

_LONGEST_NAME = 1000
_BUFFER_BYTES = 256 * 1024
_LONGEST_STORAGE_NAME = 2 * _LONGEST_NAME
_LONGEST_KEY = 100
_LARGEST_SIZE = 2**63
_FEW_BYTES = 32
_ITEM_UNITS = 100
_STORAGE_UNITS = 100
_INERT_UNITS = 10
_DICTS = {"collections.OrderedDict": False, "collections.Counter": False, "collections.defaultdict": True}
"""Dicts whose items are kept, and whether they are called with a factory first."""
# How protocol 0, which knows no binary names of storages, writes their tuple.
_STORAGE_TEXT = re.compile(
    r"\('storage', <class '([\w.]+)'>, '([\w./-]{1,100})', '[\w:.]*', (\d{1,19})(?:, None)?\)", re.ASCII
)


class GuardedDict(dict[Any, Any]):
    """A dict that spends what its keys may cost."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any, _set: Any = dict.__setitem__) -> None:
        _set(self, key if key.__class__ is str else as_key(key), value)


class ItemsOnlyDict(GuardedDict):
    """An OrderedDict and the like, of which only the items are kept: attributes could shadow methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass

    def take(self, given: Any) -> None:
        """Take the items of a dict, or of a list of pairs."""
        for key, value in given.items() if isinstance(given, dict) else given:
            self[key] = value


class InertUnpickler(pickle.Unpickler):
    """Builds plain containers; every class becomes an inert stand-in, every storage a reference.

    Args:
        walk: what a walk over the pickle found, which bounds what it can cost.
        lenient: whether names that can act are noted and get stand-ins, too, instead of ending it: for looking at a
        file
            that will not be used.
        memory_bytes: the most that the process may take while it is loaded, where one should look; 0 for no look.
        already_bytes: what it had before.

    Attributes:
        names: what the pickle asked for so far, as `module.name`, also those that it put together while it was loaded.
    """

    def __init__(self, walk: Walk, *, lenient: bool = False, memory_bytes: int = 0, already_bytes: int = 0) -> None:
        # Buffered, because from a plain BytesIO the unpickler takes each operation by a call of its own.
        if memory_bytes:
            super().__init__(metered(walk.safe, already_bytes, memory_bytes))
        else:
            super().__init__(io.BufferedReader(io.BytesIO(walk.safe), _BUFFER_BYTES))
        self.names: dict[str, NameKind] = {}
        self._lenient = lenient
        self._wraps = walk.wraps
        self._mentions = 0
        self._made: dict[str, Any] = {}
        self._uncalled: dict[str, str] = {}
        self._size_bytes = len(walk.safe)

    def load(self) -> Any:
        """Return the pickle's object.

        Raises:
            Unsafe: it names something that can act.
            Oversized: it would take more memory than its size is worth.
            Damaged: it is no sound pickle.
            MemoryError: there is not enough.
        """
        begin_file(self._size_bytes)
        try:
            with without_garbage_collection():
                content = super().load()
        except (Fault, MemoryError):
            raise
        except PickleTooCostlyError as error:
            raise Oversized(str(error)) from error
        except RecursionError as error:
            raise Damaged("it is nested too deeply") from error
        except Exception as error:
            raise Damaged("what it holds cannot be put together") from error
        for full_name, name in self._uncalled.items():
            self.names[full_name] = NameKind.REFUSED
            self._refuse(name)
        return content

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for whatever is named; nothing is imported.

        Raises:
            Unsafe: it can act.
            PickleTooCostlyError: a name that is too long, or too many of them.
        """
        self._mentions += 1
        check_mentions(self._mentions)
        _check_length(len(module) + len(name))
        full_name = f"{module}.{name}"
        made = self._made.get(full_name)
        if made is None:
            made = self._made[full_name] = self._make(full_name)
        return made

    def _make(self, full_name: str) -> Any:
        spend(CLASS_UNITS)
        modern = modern_name(full_name)
        self.names[full_name] = kind = kind_of_name(full_name)
        if kind is NameKind.REFUSED:
            self._refuse(modern)
        elif modern in names.CONDITIONAL:
            self._uncalled[full_name] = modern
            return self._judging(full_name, modern, _CALLS[modern])
        elif modern == names.ENCODE:
            return _encode
        elif modern in _DICTS:
            return self._dict_maker(has_factory=_DICTS[modern])
        return stand_in_class(full_name)

    def _refuse(self, name: str) -> None:
        if not self._lenient:
            raise Unsafe(name)

    def _judging(self, full_name: str, modern: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a function that is harmless if it is called with certain things."""

        def called(*args: Any) -> Any:
            if len(args) > FEW_ARGUMENTS:  # they are copied for each call
                spend(_ITEM_UNITS * len(args))
            try:
                result = call(*args)
            except TypeError:  # more or fewer than it takes
                result = None
            if result is None:
                self.names[full_name] = NameKind.REFUSED
                self._refuse(modern)
                return stand_in_class(full_name)(*args)
            self._uncalled.pop(full_name, None)
            return result

        return called

    @staticmethod
    def _dict_maker(*, has_factory: bool) -> Callable[..., Any]:
        """Return what makes a dict: empty, or of another dict or a list of pairs, as some Pythons write it."""

        def make(*args: Any) -> Any:
            made = ItemsOnlyDict()
            if len(args) > FEW_ARGUMENTS:
                raise ValueError("a dict is called with more than any dict takes")
            given = args[1:] if has_factory else args
            if given:
                spend(_ITEM_UNITS * len(given[0]))  # a few bytes could ask for megabytes each time
                made.take(given[0])
            return made

        return make

    def persistent_load(self, pid: Any) -> Any:
        """Return a reference to the storage that is named; wrap what `walk_pickle` hands over.

        Raises:
            ValueError: it is nothing that names a storage.
        """
        kind = type(pid)
        if kind is dict and self._wraps:  # a plain one is still empty
            return GuardedDict()
        if kind is tuple and len(pid) == 1 and type(pid[0]) is tuple and pid[0]:  # in the place of a dict with items
            return _dict_of(pid[0][0])
        if kind is tuple and self._wraps:
            return TupleValue(pid)
        if kind is tuple or kind is TupleValue:
            return _storage(pid)
        if kind is int:
            return LargeInteger(pid)
        if kind is list:
            spend(_ITEM_UNITS * len(pid))
            return TupleValue(pid)
        found = _STORAGE_TEXT.fullmatch(pid) if kind is str and len(pid) <= _LONGEST_STORAGE_NAME else None
        if found is None:
            raise ValueError("a storage's name is no tuple")
        return StorageRef(found[1].rpartition(".")[2], found[2], int(found[3]))


def _encode(*args: Any) -> Any:
    """Return the few bytes of a number of numpy as bytes; a stand-in for many, of which perhaps nothing is wanted."""
    if len(args) == 2 and args[1].__class__ is str and args[1] in LATIN_1:
        text = args[0]
        if text.__class__ is str and len(text) <= _FEW_BYTES and (text.isascii() or max(text) <= "\xff"):
            return text.encode("latin-1")
    return _encoded(*args)


_encoded = stand_in_class(names.ENCODE)


def _dict_of(items: list[Any]) -> GuardedDict:
    """Return a dict of keys and values in turn."""
    spend(_ITEM_UNITS * len(items))
    made = GuardedDict()
    for index in range(0, len(items), 2):
        made[items[index]] = items[index + 1]
    return made


def _storage(pid: tuple[Any, ...]) -> StorageRef:
    """Read `('storage', class, key, device, count)`, and in old files, which part of another storage it is."""
    spend(_STORAGE_UNITS)
    what, kind, key, _device, count = pid[:5]
    if what != "storage" or not _is_inert(kind) or not isinstance(key, str) or not isinstance(count, int):
        raise ValueError("a storage's name is not what torch writes")
    offset = 0
    if len(pid) > 5 and pid[5] is not None:
        _, offset, count = pid[5]
    name = sys.intern(kind.foreign_name.rpartition(".")[2])
    is_sound = len(key) <= _LONGEST_KEY and len(name) <= _LONGEST_KEY and isinstance(offset, int)
    if not is_sound or not 0 <= count < _LARGEST_SIZE or not 0 <= offset < _LARGEST_SIZE:
        raise ValueError("a storage's name is not what torch writes")
    return StorageRef(name, key, int(count), int(offset))


def _check_length(characters: int) -> None:
    if characters > _LONGEST_NAME:
        raise PickleTooCostlyError(f"it names a class of {characters} characters (at most {_LONGEST_NAME} are read)")


# --- names that are judged by what they are called with ---------------------------------------------
# Each of these returns None for a call that no honest pickle makes.


def _is_inert(value: Any) -> bool:
    return isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn))


def _is_callable(value: Any) -> bool:
    return _is_inert(value) or (callable(value) and not isinstance(value, type))


def _getattr(target: Any, name: Any) -> Any:
    """An attribute of a stand-in: a member of an enum, a class inside of another, a method of an object."""
    if not isinstance(name, str) or not name.isidentifier() or (name.startswith("__") and name.endswith("__")):
        return None
    if _is_inert(target):
        _check_length(len(target.foreign_name) + len(name))
    spend(CLASS_UNITS)
    if isinstance(target, type) and issubclass(target, StandIn):
        return attribute_class(target.foreign_name, name)
    return stand_in_class(names.GETATTR)(target, name) if isinstance(target, StandIn) else None


def _partial(function: Any) -> Any:
    return stand_in_class(names.PARTIAL)(function) if _is_callable(function) else None


def _reconstruct(kind: Any, base: Any, state: Any) -> Any:
    """An object of protocol 0 or 1: of a class that derives from `object`, or from a built-in type."""
    if not (isinstance(kind, type) and issubclass(kind, StandIn)) or not _is_inert(base):
        return None
    made = kind()
    if isinstance(state, dict | list):
        made.content = state
    elif state is not None:
        made.args = (state,)
    return made


def _new_object(kind: Any, *args: Any) -> Any:
    return kind(*args) if isinstance(kind, type) and issubclass(kind, StandIn) else None


def _new_object_ex(kind: Any, args: Any, keywords: Any) -> Any:
    if not isinstance(args, tuple) or not isinstance(keywords, dict):
        return None
    made = _new_object(kind, *args)
    if made is not None:
        made.state = keywords
    return made


def _compile(pattern: Any, flags: Any = 0) -> Any:
    is_sound = isinstance(pattern, str | bytes) and isinstance(flags, int)
    return stand_in_class(names.COMPILE)(pattern, flags) if is_sound else None


def _get_item(kind: Any, item: Any) -> Any:
    """A generic alias, such as `Optional[int]`."""
    return stand_in_class(names.GET_ITEM)(kind, item) if _is_inert(kind) else None


def _reduce(function: Any, items: Any, *more: Any) -> Any:
    """A union of types, such as `int | str`."""
    spend(_INERT_UNITS * len(items) if isinstance(items, list | tuple) else 0)
    is_union = isinstance(function, type) and modern_name(getattr(function, "foreign_name", ".")) == "operator.or_"
    is_sound = is_union and isinstance(items, list | tuple) and all(map(_is_inert, items)) and not more
    return stand_in_class(names.REDUCE)(function, items) if is_sound else None


def _type(value: Any) -> Any:
    """The type of something that is only one of its kind."""
    is_single = value is None or (isinstance(value, type) and issubclass(value, StandIn))
    return stand_in_class("types.NoneType") if is_single else None


_CALLS: Mapping[str, Callable[..., Any]] = {
    names.GETATTR: _getattr,
    names.PARTIAL: _partial,
    names.RECONSTRUCTOR: _reconstruct,
    names.NEW_OBJECT: _new_object,
    names.NEW_OBJECT_EX: _new_object_ex,
    names.COMPILE: _compile,
    names.GET_ITEM: _get_item,
    names.TYPE: _type,
    names.REDUCE: _reduce,
}
