"""Reduces what a checkpoint's dicts contain to plain values that any program can open. Pure: knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sda_daemon.torchfile.faults import Oversized
from sda_daemon.torchfile.globals import (
    BYTES_FUNCTIONS,
    STANDARD_MODULES,
    TENSOR_FUNCTIONS,
    WRAPPER_FUNCTIONS,
    modern_name,
)
from sda_daemon.torchfile.stand_ins import StandIn, StorageRef, member_name
from sda_daemon.torchfile.values import array_values, fields_of, is_namespace, list_of, number_of, omega_value
from sda_daemon.wording import LONGEST_QUOTE, shortened

MAX_DEPTH = 32
"""Deepest nesting kept; real configs have two or three levels."""
MAX_VALUES = 20_000
"""Most values kept; real configs have some thirty."""
MAX_CHARACTERS = 4_000_000
"""Longest text kept in all; real configs have some hundred characters."""
_VALUE_MODULES = ("decimal", "fractions")
_DICTS = ("omegaconf.", "collections.", "types.MappingProxyType")
_MOST_BITS = 63
_LONGEST_PLACE = 400
_APPLICATION = ("small_dataset_audio.", "distill.")
_NOTHING: Any = object()


def plain_value(value: Any, dropped: Callable[[str, str], None], where: str = "") -> Any:
    """Return `value` made of None, bool, int, float, str, list and dict only.

    An enum stand-in (one plain constructor argument, no state) becomes its value; paths become texts, numpy's numbers
    and arrays numbers and lists, namespaces and OmegaConf's containers dicts; whatever else is foreign is dropped and
    `dropped(where, description)` is called for it. Tuples and sets become lists. Nesting beyond `MAX_DEPTH`, values
    beyond the first `MAX_VALUES` and texts beyond the first `MAX_CHARACTERS` are dropped: lists that share their items
    can be small in a file and endless when written out.

    Args:
        value: anything; a foreign thing that is one gives None.
        dropped: called for what cannot be kept.
        where: what `value` is called.
    """
    plain = _Reduction(dropped).reduce(value, where, 0)
    return None if plain is _NOTHING else plain


class _Reduction:
    def __init__(self, dropped: Callable[[str, str], None]) -> None:
        self.dropped = dropped
        self.left = MAX_VALUES
        self.characters_left = MAX_CHARACTERS
        self.told = False

    def reduce(self, value: Any, where: str, depth: int) -> Any:
        """Return the plain value, `_NOTHING` if it was dropped."""
        self.left -= 1
        if isinstance(value, StandIn | type):
            try:
                value = _known_value(value)
            except Oversized:  # the rest can do without
                return self._drop(where, "too many values")
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return (
                int(value) if value.bit_length() <= _MOST_BITS else self._drop(where, "a number of more than 64 bits")
            )
        if isinstance(value, str):
            return self._text(value, where)
        if isinstance(value, dict):
            return self._reduce_dict(value, where, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._reduce_list(value, where, depth)
        if _is_number(value):
            return self.reduce(value.item(), where, depth)
        return self._drop(where, describe_foreign(value))

    def _drop(self, where: str, what: str) -> Any:
        self.dropped(where, what)
        return _NOTHING

    def _text(self, value: str, where: str) -> Any:
        self.characters_left -= len(value)
        return value if self.characters_left >= 0 else self._drop(where, "too much text")

    def _reduce_list(self, value: Any, where: str, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            return self._too_deep(where)
        kept = []
        for index, item in enumerate(value):
            plain = self.reduce(item, _place(where, f"[{index}]"), depth + 1)
            if plain is not _NOTHING:
                kept.append(plain)
            if self._is_full(where):
                break
        return kept

    def _reduce_dict(self, value: dict[Any, Any], where: str, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            return self._too_deep(where)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str | int | float) or (isinstance(key, int) and key.bit_length() > _MOST_BITS):
                self.left -= 1
                self.dropped(where, f"key of type {_kind_of_key(key)}")
            else:
                name = str(key)
                self.characters_left -= len(name)
                plain = self.reduce(item, _place(where, shortened(name, LONGEST_QUOTE)), depth + 1)
                if plain is not _NOTHING:
                    kept[name] = plain
            if self._is_full(where):
                break
        return kept

    def _too_deep(self, where: str) -> Any:
        self.dropped(where, "nested too deeply")

    def _is_full(self, where: str) -> bool:
        is_full = self.left <= 0 or self.characters_left < 0
        if is_full and not self.told:
            self.told = True
            self.dropped(where, "too many values" if self.left <= 0 else "too much text")
        return is_full


def _place(where: str, step: str) -> str:
    """Return where something is, as `training_config.layers[3]`; of a very long one, only its beginning."""
    if len(where) > _LONGEST_PLACE:
        return where
    return step if not where else f"{where}{step}" if step.startswith("[") else f"{where}.{step}"


def _is_number(value: Any) -> bool:
    """Tell whether something is one of numpy's own numbers or an array of a single one."""
    is_numpy = type(value).__module__ == "numpy" and getattr(value, "size", None) == 1
    return is_numpy and getattr(getattr(value, "dtype", None), "kind", "O") in "biufU"


_WORDS = {
    "bool": "truth value", "int": "whole number", "float": "number", "complex": "complex number", "str": "text",
    "bytes": "row of bytes", "bytearray": "row of bytes", "NoneType": "missing value", "frozenset": "set",
}  # fmt: skip
_NAMES = {
    **dict.fromkeys(BYTES_FUNCTIONS, "row of bytes"),
    "builtins.set": "set", "builtins.frozenset": "set", "builtins.complex": "complex number",
    "builtins.getattr": "part of something foreign", "functools.partial": "function",
    **dict.fromkeys(TENSOR_FUNCTIONS, "tensor"), **dict.fromkeys(WRAPPER_FUNCTIONS, "tensor"), "torch.Tensor": "tensor",
}  # fmt: skip
_KINDS = (dict, list, tuple, bool, int, float)


def describe_foreign(value: Any) -> str:
    """Return a short name for something that plain files cannot hold: in words, or what a foreign class is called.

    It goes with "a", and names no function that pickles call to make such a thing.
    """
    if isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn)):
        name = modern_name(value.foreign_name)
        if name.startswith("numpy") and isinstance(value, StandIn):
            return _describe_numpy(name.rpartition(".")[2], name)
        return _NAMES.get(name, name) if isinstance(value, StandIn) else name
    kind = next((kind for kind in _KINDS if isinstance(value, kind)), type(value))
    if kind.__module__ == "numpy":
        return "numpy array" if kind.__name__ == "ndarray" else "number of numpy"
    if kind.__module__.startswith("torch"):
        return "tensor"
    if isinstance(value, StorageRef):
        return "tensor's storage"
    return _WORDS.get(kind.__qualname__, kind.__qualname__)


def _describe_numpy(function: str, name: str) -> str:
    words = {"scalar": "number of numpy", "_reconstruct": "numpy array", "_frombuffer": "numpy array"}
    return words.get(function, name)


def _kind_of_key(key: Any) -> str:
    return (
        "number of more than 64 bits"
        if isinstance(key, int)
        else "tuple"
        if isinstance(key, tuple)
        else describe_foreign(key)
    )


def _known_value(value: Any) -> Any:
    """Return the value of a stand-in for something that only holds one; anything else as it is."""
    member = member_name(value)
    if member and (member.isupper() or member.islower()):  # in camel case it is a class
        # The training application's enums have their names in lower case as values; of others only the name is known.
        is_ours = value.foreign_name.startswith(_APPLICATION)
        return member.lower() if is_ours and member.isupper() else member
    if not isinstance(value, StandIn):
        return value
    name = modern_name(value.foreign_name)
    if name.startswith("pathlib."):
        parts = [part for part in value.args if isinstance(part, str)]
        return "/".join(parts).replace("//", "/") if parts else value
    items = list_of(value)
    if items is not None:
        return items
    if name.startswith("omegaconf."):
        return omega_value(value)
    if is_namespace(value) or name.startswith(_DICTS):
        inner = fields_of(value)
        return value if inner is None else inner
    if name.startswith("numpy"):
        number = number_of(value)
        if number is not None:
            return number
        text = array_values(value) if name.endswith(".scalar") else None
        return text if isinstance(text, str) else value
    root = name.partition(".")[0]
    if root not in _VALUE_MODULES and (root in STANDARD_MODULES or root in ("torch", "__builtin__")):
        return value  # a call of a function, which no value is
    is_value = value.state is None and value.content is None and len(value.args) == 1
    return value.args[0] if is_value and isinstance(value.args[0], str | int | float | bool) else value
