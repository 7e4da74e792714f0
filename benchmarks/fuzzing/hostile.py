"""Pickles that were made to cost more than they are worth: each a kind, in any size, put where a reader will look.

A kind is a function of about how many bytes its pickle should have. It returns what prepares the memo and leaves
nothing on the stack, and what leaves one value there. Places in the memo from 0 to 9 belong to the kind.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

Pieces = tuple[bytes, bytes]
"""What prepares, and what leaves one value."""
KINDS: dict[str, Callable[[int], Pieces]] = {}


def _kind(function: Callable[[int], Pieces]) -> Callable[[int], Pieces]:
    KINDS[function.__name__.strip("_").replace("_", " ")] = function
    return function


# --- operations -------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    """A text."""
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """A whole number."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw if len(raw) < 256 else b"\x8b" + struct.pack("<I", len(raw)) + raw


def name(full_name: str) -> bytes:
    """A class or function."""
    module, _, attribute = full_name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def keep(place: int, value: bytes) -> bytes:
    """Put a value into the memo, and take it from the stack."""
    return value + b"q" + bytes([place]) + b"0"


def get(place: int) -> bytes:
    """The value at a place in the memo."""
    return b"h" + bytes([place])


def call(function: bytes, *args: bytes) -> bytes:
    """The result of a call."""
    return function + b"(" + b"".join(args) + b"tR"


def listed(items: Iterable[bytes]) -> bytes:
    """A list."""
    return b"](" + b"".join(items) + b"e"


def mapped(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A dict."""
    return b"}(" + b"".join(key + value for key, value in items) + b"u"


def many(item: bytes, size: int) -> bytes:
    """A list of as many of the same as make up a size."""
    return b"](" + item * max(1, size // len(item)) + b"e"


def pairs_of_pairs(depth: int) -> bytes:
    """A pair of one and the same pair of …, put into the memo's place 0; each level has a place of its own before."""
    begin = b"Nr" + struct.pack("<I", 1000) + b"0"
    for level in range(1001, 1001 + depth):
        before = b"j" + struct.pack("<I", level - 1)
        begin += before + before + b"\x86r" + struct.pack("<I", level) + b"0"
    return begin + keep(0, b"j" + struct.pack("<I", 1000 + depth))


def _half(size: int, width: int = 1) -> int:
    return max(1, size // 2 // width)


# --- keys that take long to find a place for ------------------------------------------------------------------


@lru_cache(maxsize=8)
def probing_numbers(bits: int, count: int, seed: int = 1) -> tuple[int, ...]:
    """Numbers of which each, put into a dict after the others, finds one place after the other taken.

    Python looks at places i, then 5 i + 1 plus ever fewer bits of the hash. The first numbers take a chain of such
    places, the others are chosen so that they come upon its beginning.
    """
    size, chain_length = 1 << bits, int((1 << bits) * 0.36)
    chain = np.empty(chain_length, np.int64)
    at = 1
    for index in range(chain_length):
        chain[index], at = at, (5 * at + 1) % size
    place_of = np.full(size, -1, np.int64)
    place_of[chain] = np.arange(chain_length)
    random_numbers = np.random.default_rng(seed)
    found: list[int] = []
    while len(found) < count:
        tried = random_numbers.integers(size, size << 11, 1_000_000)
        places: Any = tried & (size - 1)
        rest: Any = tried.copy()
        is_good = np.ones(len(tried), bool)
        for _ in range(-(-(bits + 11) // 5)):
            is_good &= place_of[places] >= 0
            rest >>= 5
            places = (5 * places + rest + 1) & (size - 1)
        is_good &= (place_of[places] >= 0) & (place_of[places] < chain_length // 4)
        found += [int(n) for n in np.unique(tried[is_good])]
    return (*map(int, chain), *found[:count])


def _probing(size: int, width: int) -> tuple[int, ...]:
    keys = max(64, size // width)
    bits = max(8, min(20, (keys - 1).bit_length() - 0))
    while int((1 << bits) * 0.6) > keys and bits > 8:
        bits -= 1
    chain = int((1 << bits) * 0.36)
    return probing_numbers(bits, max(1, min(keys, int((1 << bits) * 0.64)) - chain))


@_kind
def _numbers_that_probe(size: int) -> Pieces:
    return b"", mapped((number(n), b"N") for n in _probing(size, 7))


@_kind
def _decimal_numbers_that_probe(size: int) -> Pieces:
    return b"", mapped((b"I%d\n" % n, b"N") for n in _probing(size, 9))


@_kind
def _fractions_that_probe(size: int) -> Pieces:
    return b"", mapped((b"G" + struct.pack(">d", float(n)), b"N") for n in _probing(size, 10))


@_kind
def _numbers_that_probe_one_by_one(size: int) -> Pieces:
    return b"", b"}" + b"".join(number(n) + b"Ns" for n in _probing(size, 8))


@_kind
def _numbers_that_probe_in_a_called_dict(size: int) -> Pieces:
    pairs = listed(number(n) + b"N\x86" for n in _probing(size, 9))
    return b"", call(name("collections.OrderedDict"), pairs)


@_kind
def _numbers_that_probe_in_a_foreign_dict(size: int) -> Pieces:
    keys = _probing(size, 7)
    return b"", name("app.Dict") + b")R(" + b"".join(number(n) + b"N" for n in keys) + b"u"


@_kind
def _numbers_that_probe_many_small_dicts(size: int) -> Pieces:
    keys = probing_numbers(11, 500)
    begin = b"".join(
        keep(0, number(n)).replace(b"q\x00", b"r" + struct.pack("<I", 300 + i)) for i, n in enumerate(keys)
    )
    one = b"}(" + b"".join(b"j" + struct.pack("<I", 300 + i) + b"N" for i in range(len(keys))) + b"u"
    return begin, many(one, size)


@_kind
def _numbers_of_one_hash(size: int) -> Pieces:
    return b"", mapped((number(n * (2**61 - 1)), b"N") for n in range(9, 9 + size // 13))


@_kind
def _pairs_of_pairs_as_keys(size: int) -> Pieces:
    return pairs_of_pairs(60), many(b"}" + get(0) + b"Ns", size)


# --- names ------------------------------------------------------------------------------------------------------


@_kind
def _names_with_many_dots(size: int) -> Pieces:
    dots = ".a" * 490
    return b"", listed(f"ctyping{dots}\nn{n}\n".encode() for n in range(max(1, size // 1000)))


@_kind
def _names_put_together(size: int) -> Pieces:
    side = max(1, min(100, int(size**0.5) // 20))
    begin = b"".join(
        text(f"typing.{'a.' * 200}m{n}") + b"r" + struct.pack("<I", 300 + n) + b"0" for n in range(side)
    ) + b"".join(text(f"{'b.' * 200}n{n}") + b"r" + struct.pack("<I", 300 + side + n) + b"0" for n in range(side))
    return begin, listed(
        b"j" + struct.pack("<I", 300 + m) + b"j" + struct.pack("<I", 300 + side + n) + b"\x93"
        for m in range(side)
        for n in range(side)
    )


@_kind
def _names_of_torch(size: int) -> Pieces:
    middle = "a" * 400 + ".a" * 200
    return b"", listed(f"ctorch.nn.{middle}\nZ{n}\n".encode() for n in range(max(1, size // 900)))


@_kind
def _many_names(size: int) -> Pieces:
    return b"", listed(f"cm\nn{n}\n".encode() for n in range(min(9_990, max(1, size // 9))))


@_kind
def _attributes_of_attributes(size: int) -> Pieces:
    begin = keep(0, name("builtins.getattr")) + keep(1, text("a" * min(900, 9 + size // 4)))
    return begin, name("app.Thing") + b"q\x02" + (b"0" + get(0) + get(2) + get(1) + b"\x86Rq\x02") * (1 + size // 13)


@_kind
def _long_attributes_often(size: int) -> Pieces:
    begin = keep(0, name("builtins.getattr")) + keep(1, text("a" * _half(size))) + keep(2, name("app.Thing"))
    return begin, many(get(0) + get(2) + get(1) + b"\x86R", _half(size))


@_kind
def _attributes_all_different(size: int) -> Pieces:
    begin = keep(0, name("builtins.getattr")) + keep(2, name("app.Thing"))
    return begin, listed(get(0) + get(2) + text(f"a{n}") + b"\x86R" for n in range(max(1, size // 17)))


@_kind
def _unions_of_one_list(size: int) -> Pieces:
    begin = keep(0, name("functools.reduce")) + keep(1, name("operator.or_")) + keep(2, name("app.Thing"))
    begin += keep(3, many(get(2), _half(size)))
    return begin, many(get(0) + get(1) + get(3) + b"\x86R", _half(size))


# --- storages -----------------------------------------------------------------------------------------------------


@_kind
def _storages_with_a_long_name(size: int) -> Pieces:
    begin = keep(0, text("('storage', <class '" + "a" * _half(size) + "'>, '0', 'cpu', 1)"))
    return begin, many(get(0) + b"Q", _half(size))


@_kind
def _storages_of_a_long_class(size: int) -> Pieces:
    storage = text("storage") + name("app." + "a" * min(900, 9 + size // 4)) + text("0") + text("cpu") + number(1)
    return keep(0, b"(" + storage + b"t"), many(get(0) + b"Q", size)


@_kind
def _storages_with_a_large_count(size: int) -> Pieces:
    large = number(1 << (8 * _half(size)))
    storage = text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + large
    return keep(0, b"(" + storage + b"t"), many(get(0) + b"Q", _half(size))


@_kind
def _storages_by_a_line(size: int) -> Pieces:
    return b"", many(b"P('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 1)\n", size)


def _tensor(storage: bytes = get(1), shape: bytes = b"K\x01\x85", strides: bytes = b"K\x01\x85") -> bytes:
    return get(0) + b"(" + storage + b"K\x00" + shape + strides + b"\x89" + name("collections.OrderedDict") + b")RtR"


def _begin_tensors() -> bytes:
    storage = text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + b"K\x01"
    return keep(0, name("torch._utils._rebuild_tensor_v2")) + keep(1, b"(" + storage + b"tQ")


@_kind
def _many_tensors(size: int) -> Pieces:
    arguments = b"(" + get(1) + b"K\x00))\x89NtQ0"[:0] + b"K\x00))\x89N"
    begin = _begin_tensors() + keep(2, arguments + b"t")
    return begin, many(get(0) + get(2) + b"R", size)


@_kind
def _many_tensors_by_name(size: int) -> Pieces:
    begin = _begin_tensors() + keep(2, b"(" + get(1) + b"K\x00))\x89Nt")
    return begin, mapped((text(f"encoder.convs.{n}"), get(0) + get(2) + b"R") for n in range(max(1, size // 26)))


@_kind
def _tensors_with_long_shapes(size: int) -> Pieces:
    shape = keep(3, many(b"K\x01", _half(size)))
    tensor = get(0) + b"(" + get(1) + b"K\x00" + get(3) + get(3) + b"\x89NtR"
    return _begin_tensors() + shape + keep(4, tensor), many(get(4), _half(size))


@_kind
def _tensors_that_are_expanded(size: int) -> Pieces:
    shape = number(2**31 - 1) + number(2**20) + b"\x86"
    tensor = get(0) + b"(" + get(1) + b"K\x00" + shape + b"K\x00K\x00\x86\x89NtR"
    return _begin_tensors(), mapped((text(f"encoder.convs.{n}"), tensor) for n in range(max(1, size // 60)))


@_kind
def _wrapped_tensors(size: int) -> Pieces:
    inner = keep(2, b"(" + get(1) + b"K\x00))\x89Nt") + keep(3, name("torch._tensor._rebuild_from_type_v2"))
    inner += keep(4, name("torch.Tensor"))
    wrapped = get(3) + b"(" + get(0) + get(4) + get(2) + b"NtR"
    return _begin_tensors() + inner + keep(5, wrapped), many(get(5), size)


# --- calls and objects ----------------------------------------------------------------------------------------------


@_kind
def _dicts_called_with_many(size: int) -> Pieces:
    begin = keep(0, b"(]" + b"N" * _half(size) + b"t") + keep(1, name("collections.OrderedDict"))
    return begin, many(get(1) + get(0) + b"R", _half(size))


@_kind
def _dicts_of_a_dict(size: int) -> Pieces:
    begin = keep(0, mapped((number(n), b"N") for n in range(_half(size, 6)))) + keep(1, name("collections.Counter"))
    return begin, many(get(1) + get(0) + b"\x85R", _half(size))


@_kind
def _objects_with_keywords(size: int) -> Pieces:
    begin = keep(0, name("app.Thing")) + keep(1, b")") + keep(2, mapped((text(f"k{n}"), b"N") for n in range(16)))
    return begin, many(get(0) + get(1) + get(2) + b"\x92", size)


@_kind
def _objects_with_arguments(size: int) -> Pieces:
    begin = keep(0, name("app.Thing")) + keep(1, b"(" + b"N" * 16 + b"t")
    return begin, many(get(0) + get(1) + b"R", size)


@_kind
def _objects_with_long_arguments(size: int) -> Pieces:
    begin = keep(0, name("app.Thing")) + keep(1, b"(" + b"N" * _half(size) + b"t")
    return begin, many(get(0) + get(1) + b"R", _half(size))


@_kind
def _small_objects(size: int) -> Pieces:
    return keep(0, name("app.Thing")), many(get(0) + b")\x81", size)


@_kind
def _small_objects_by_a_mark(size: int) -> Pieces:
    return keep(0, name("app.Thing")), many(b"(" + get(0) + b"o", size)


@_kind
def _objects_with_an_item(size: int) -> Pieces:
    return keep(0, name("app.Thing")), many(get(0) + b")\x81NNs", size)


@_kind
def _objects_with_an_appended_item(size: int) -> Pieces:
    return keep(0, name("app.Thing")), many(get(0) + b")\x81Na", size)


@_kind
def _states_again_and_again(size: int) -> Pieces:
    return b"", name("app.Thing") + b")R" + b"Nb" * (size // 2)


@_kind
def _items_appended_one_by_one(size: int) -> Pieces:
    return b"", name("app.Thing") + b")R" + b"Na" * (size // 2)


@_kind
def _items_set_one_by_one(size: int) -> Pieces:
    return b"", name("app.Thing") + b")R" + b"NNs" * (size // 3)


@_kind
def _objects_thrown_away(size: int) -> Pieces:
    return keep(0, name("app.Thing")), (get(0) + b")R0") * (size // 5) + b"N"


@_kind
def _dicts_thrown_away(size: int) -> Pieces:
    return keep(0, name("collections.OrderedDict")), (get(0) + b")R0") * (size // 5) + b"N"


@_kind
def _frozen_sets_thrown_away(size: int) -> Pieces:
    return b"", b"(\x910" * (size // 3) + b"N"


@_kind
def _tuples_thrown_away(size: int) -> Pieces:
    return b"", b"N\x850" * (size // 3) + b"N"


@_kind
def _storages_thrown_away(size: int) -> Pieces:
    storage = text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + number(1)
    return keep(0, b"(" + storage + b"t"), (get(0) + b"Q0") * (size // 4) + b"N"


# --- small in a file, large in memory ---------------------------------------------------------------------------------


def _small(item: bytes) -> Callable[[int], Pieces]:
    return lambda size: (b"", many(item, size))


for _title, _item in {
    "empty dicts": b"}",
    "empty lists": b"]",
    "empty sets": b"\x8f",
    "lists by a mark": b"(l",
    "dicts by a mark": b"(d",
    "dicts of one": b"}NNs",
    "dicts of one by a mark": b"(NNd",
    "lists of one": b"]Na",
    "frozen sets": b"(\x91",
    "tuples of one": b"N\x85",
    "tuples of three": b"NNN\x87",
    "short texts": b"\x8c\x02ab",
    "short texts beyond ASCII": b"\x8c\x05\xe2\x82\xacab",
    "short texts of protocol 1": b"U\x02ab",
    "texts by a line": b"Vab\n",
    "quoted texts": b"S'ab'\n",
    "short bytes": b"C\x02ab",
    "byte arrays": b"\x96\x01\0\0\0\0\0\0\0a",
    "small numbers": b"M\x00\x10",
    "numbers by a line": b"I999\n",
    "long numbers": b"\x8a\x02\x00\x10",
    "large numbers": b"\x8a\x09\0\0\0\0\0\0\0\0\x01",
    "fractions by a line": b"F1\n",
    "doubles": b"G\x3f\xf0\0\0\0\0\0\0",
    "nothing": b"N",
}.items():
    KINDS[_title] = _small(_item)


@_kind
def _lists_in_lists(size: int) -> Pieces:
    return b"", b"]" * (size // 2) + b"a" * (size // 2 - 1)


@_kind
def _dicts_in_dicts(size: int) -> Pieces:
    return b"", b"}N" * (size // 3) + b"N" + b"s" * (size // 3)


@_kind
def _tuples_in_tuples(size: int) -> Pieces:
    return b"", b"N" + b"\x85" * size


@_kind
def _tuples_in_tuples_by_marks(size: int) -> Pieces:
    return b"", b"(" * (size // 2) + b"t" * (size // 2)


@_kind
def _one_long_number(size: int) -> Pieces:
    return b"", number(1 << (8 * size))


@_kind
def _one_long_decimal_number(size: int) -> Pieces:
    return b"", b"L" + b"9" * min(size, 4000) + b"L\n"


@_kind
def _one_number_of_ten_thousand_digits(size: int) -> Pieces:
    return b"", number(10**10_000 + size)


@_kind
def _one_long_text(size: int) -> Pieces:
    return b"", text("é" * (size // 2))


@_kind
def _an_astral_text(size: int) -> Pieces:
    return b"", text("\U0001f600" + "a" * size)


@_kind
def _a_long_line(size: int) -> Pieces:
    return b"", b"V" + b"\\u20ac" * (size // 6) + b"\n"


@_kind
def _surrogates(size: int) -> Pieces:
    return b"", text("\ud800" * max(1, size // 3))


# --- what later stages take long for ---------------------------------------------------------------------------------


def _array(dtype: bytes, shape: bytes, data: bytes, order: bytes = b"\x89") -> bytes:
    made = name("numpy._core.multiarray._reconstruct") + b"(" + name("numpy.ndarray") + b"K\x00\x85" + text("b") + b"tR"
    return made + b"(K\x01" + shape + dtype + order + data + b"tb"


def _dtype(code: str = "i1") -> bytes:
    kind = call(name("numpy.dtype"), text(code), b"\x89", b"\x88")
    return kind + b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def _latin(data: bytes) -> bytes:
    return name("_codecs.encode") + b"(" + text(data.decode("latin1")) + text("latin1") + b"tR"


@_kind
def _one_array_often(size: int) -> Pieces:
    count = min(_half(size), 1_000_000)
    data = b"B" + struct.pack("<I", count) + bytes(count)
    return keep(0, _array(_dtype(), number(count) + b"\x85", data)), many(get(0), _half(size))


@_kind
def _one_encoded_array_often(size: int) -> Pieces:
    count = min(_half(size), 1_000_000)
    data = name("builtins.bytearray") + b"(" + _latin(bytes(count)) + b"tR"
    return keep(0, _array(_dtype(), number(count - 1) + b"\x85", data)), many(get(0), _half(size))


@_kind
def _one_scalar_of_much_often(size: int) -> Pieces:
    count = _half(size)
    scalar = call(name("numpy._core.multiarray.scalar"), _dtype("f8"), _latin(bytes(count)))
    return keep(0, scalar), many(get(0), _half(size))


@_kind
def _one_array_of_many_dimensions(size: int) -> Pieces:
    count = min(size, 1_000_000)
    shape = b"(" + b"K\x01" * 31 + number(count) + b"t"
    return b"", _array(_dtype(), shape, b"B" + struct.pack("<I", count) + bytes(count))


@_kind
def _one_array_of_one_value_each(size: int) -> Pieces:
    count = min(size, 1_000_000)
    shape = b"(" + number(count) + b"K\x01" * 31 + b"t"
    return b"", _array(_dtype(), shape, b"B" + struct.pack("<I", count) + bytes(count))


@_kind
def _one_array_by_columns(size: int) -> Pieces:
    count = min(size, 1_000_000)
    return b"", _array(
        _dtype(), number(1) + number(count) + b"\x86", b"B" + struct.pack("<I", count) + bytes(count), b"\x88"
    )


@_kind
def _an_array_without_elements(size: int) -> Pieces:
    return b"", _array(_dtype(), number(size) + b"K\x00\x86", b"C\x00")


@_kind
def _a_dtype_of_pairs_of_pairs(size: int) -> Pieces:
    scalar = call(name("numpy._core.multiarray.scalar"), call(name("numpy.dtype"), get(0)), b"C\x08" + bytes(8))
    return pairs_of_pairs(40), scalar


@_kind
def _many_dtypes_of_pairs_of_pairs(size: int) -> Pieces:
    begin, scalar = _a_dtype_of_pairs_of_pairs(size)
    return begin, many(scalar, size)


@_kind
def _a_dtype_of_a_long_list(size: int) -> Pieces:
    begin = keep(0, many(b"K\x01", _half(size)))
    scalar = call(name("numpy._core.multiarray.scalar"), call(name("numpy.dtype"), get(0)), b"C\x08" + bytes(8))
    return begin + keep(1, scalar), many(get(1), _half(size))


@_kind
def _a_text_of_numpy(size: int) -> Pieces:
    count = _half(size, 4)
    scalar = call(
        name("numpy._core.multiarray.scalar"), call(name("numpy.dtype"), text(f"U{count}")), _latin(b"a\0\0\0" * count)
    )
    return keep(0, scalar), many(get(0), _half(size))


@_kind
def _proxies_of_proxies(size: int) -> Pieces:
    begin = keep(0, name("types.MappingProxyType")) + keep(1, b"}")
    return begin, get(1) + b"q\x02" + (b"0" + get(0) + get(2) + b"\x85Rq\x02") * (size // 10)


@_kind
def _bytes_of_bytes(size: int) -> Pieces:
    begin = keep(0, name("builtins.bytearray")) + keep(1, b"C\x00")
    return begin, get(1) + b"q\x02" + (b"0" + get(0) + get(2) + b"\x85Rq\x02") * (size // 10)


@_kind
def _parameters_of_parameters(size: int) -> Pieces:
    begin = keep(0, name("torch._utils._rebuild_parameter")) + keep(1, b"N")
    return begin, get(1) + b"q\x02" + (b"0" + get(0) + get(2) + b"\x85Rq\x02") * (size // 10)


@_kind
def _nodes_of_nodes(size: int) -> Pieces:
    begin = keep(0, name("omegaconf.dictconfig.DictConfig")) + keep(1, b"N")
    step = b"0" + get(0) + b")R}" + text("_content") + get(2) + b"sbq\x02"
    return begin, get(1) + b"q\x02" + step * (size // len(step))


@_kind
def _one_set_often_and_deep(size: int) -> Pieces:
    begin = keep(0, call(name("builtins.set"), many(b"N", _half(size))))
    return begin, b"]" * 31 + many(get(0), _half(size)) + b"a" * 31


@_kind
def _one_set_often(size: int) -> Pieces:
    begin = keep(0, call(name("builtins.set"), many(b"N", _half(size))))
    return begin, many(get(0), _half(size))


@_kind
def _one_dict_often(size: int) -> Pieces:
    return keep(0, mapped((number(n), b"N") for n in range(_half(size, 6)))), many(get(0), _half(size))


@_kind
def _one_dict_of_odd_keys_often(size: int) -> Pieces:
    begin = keep(0, mapped((b"K\x01\x85", b"N") for n in range(min(40_000, _half(size, 4)))))
    return begin, many(get(0), _half(size))


@_kind
def _one_dict_of_large_keys_often(size: int) -> Pieces:
    begin = keep(0, mapped((number(2**70 + n), b"N") for n in range(min(40_000, _half(size, 12)))))
    return begin, many(get(0), _half(size))


@_kind
def _one_dict_under_many_keys(size: int) -> Pieces:
    begin = keep(0, mapped((number(n), b"N") for n in range(_half(size, 6))))
    return begin, mapped((text(f"k{n}"), get(0)) for n in range(_half(size, 13)))


@_kind
def _one_list_of_tensors_under_many_keys(size: int) -> Pieces:
    begin = (
        _begin_tensors()
        + keep(2, b"(" + get(1) + b"K\x00))\x89Nt")
        + keep(3, many(get(0) + get(2) + b"R", _half(size)))
    )
    return begin, mapped((text(f"k{n}"), get(3)) for n in range(_half(size, 13)))


@_kind
def _one_empty_list_often(size: int) -> Pieces:
    return keep(0, b"]"), many(get(0), size)


@_kind
def _lists_that_share(size: int) -> Pieces:
    return keep(0, b"]"), get(0) + b"q\x010" + (b"](" + get(1) * 20 + b"eq\x010") * (size // 46) + get(1)


@_kind
def _dicts_that_share(size: int) -> Pieces:
    step = b"}(" + b"".join(text(f"k{n}") + get(1) for n in range(9)) + b"uq\x010"
    return keep(0, b"}"), get(0) + b"q\x010" + step * (size // len(step)) + get(1)


@_kind
def _tuples_that_share(size: int) -> Pieces:
    return b"", b")q\x010" + (b"(" + get(1) * 20 + b"tq\x010") * (size // 45) + get(1)


@_kind
def _pairs_that_share(size: int) -> Pieces:
    return pairs_of_pairs(min(500, size // 20)), get(0)


@_kind
def _pairs_that_share_in_an_object(size: int) -> Pieces:
    return pairs_of_pairs(40), call(name("app.Thing"), get(0))


@_kind
def _pairs_that_share_in_a_path(size: int) -> Pieces:
    return pairs_of_pairs(40), call(name("pathlib.Path"), get(0), text("a"))


@_kind
def _pairs_that_share_as_a_storage(size: int) -> Pieces:
    return pairs_of_pairs(40) + _begin_tensors(), _tensor(get(0), get(0), get(0)).replace(
        b"h\x00(", name("torch._utils._rebuild_tensor_v2") + b"(", 1
    )


@_kind
def _a_list_in_itself(size: int) -> Pieces:
    return b"", b"]q\x00(" + get(0) * (size // 2) + b"e"


@_kind
def _a_dict_in_itself(size: int) -> Pieces:
    return b"", b"}q\x00(" + b"".join(text(f"k{n}") + get(0) for n in range(size // 13)) + b"u"


@_kind
def _an_object_in_itself(size: int) -> Pieces:
    return b"", name("types.MappingProxyType") + b")Rq\x00(" + text("k") + get(0) + b"db" + b"N" * 0 + get(0) + b"b"


@_kind
def _a_long_key_with_many_in_it(size: int) -> Pieces:
    return b"", mapped([(text("k" * _half(size)), many(b"}", _half(size)))])


@_kind
def _long_keys_in_long_keys(size: int) -> Pieces:
    begin = keep(0, text("k" * _half(size)))
    return begin, (b"}" + get(0)) * 30 + many(b"}", _half(size)) + b"s" * 30


@_kind
def _odd_keys(size: int) -> Pieces:
    return pairs_of_pairs(40), mapped(
        [(get(0), b"N"), (number(10**5000), b"N"), (b"N", b"N"), (b"C\x01a", b"N"), (b"(\x91", b"N")]
    )


@_kind
def _one_long_number_often(size: int) -> Pieces:
    return keep(0, number(1 << (8 * _half(size)))), many(get(0), _half(size))


@_kind
def _one_long_text_often(size: int) -> Pieces:
    return keep(0, text("a" * _half(size))), many(get(0), _half(size))


@_kind
def _names_of_weights_that_are_looked_at_often(size: int) -> Pieces:
    return b"", mapped([(text("encoder.fc_mu." * max(1, size // 14) + "/"), b"N")])


@_kind
def _copies_of_weights_under_long_names(size: int) -> Pieces:
    weights = [(text(f"encoder.convs.{n}.weight"), b"N") for n in range(_half(size, 30))]
    return b"", mapped([*weights, (text("a" * _half(size) + ".encoder.convs.0.weight"), b"N")])


@_kind
def _copies_of_weights_under_many_names(size: int) -> Pieces:
    weights = [(text(f"encoder.convs.{n}.weight"), b"N") for n in range(_half(size, 30))]
    return b"", mapped([*weights, *((text(f"a{n}.encoder.convs.0.w"), b"N") for n in range(_half(size, 30)))])


@_kind
def _one_record_often(size: int) -> Pieces:
    count = min(_half(size), 1_000_000)
    data = _array(_dtype(), number(count) + b"\x85", b"B" + struct.pack("<I", count) + bytes(count))
    begin = keep(0, data) + keep(
        1, mapped([(text("epoch"), get(0)), (text("train_loss"), get(0)), (text("val_loss"), get(0))])
    )
    return begin, mapped([(text("epoch_metrics"), many(get(1), _half(size)))])


@_kind
def _rows_that_share(size: int) -> Pieces:
    begin = keep(0, many(b"K\x01", _half(size)))
    row = many(get(0), _half(size))
    names = ["pca_mean", "explained_variance_ratio", "safe_min", "safe_max", "warning_min", "warning_max", "step_size"]
    return begin, mapped([(text("pca_components"), row), *((text(n), get(0)) for n in names)])


@_kind
def _correlations_that_share(size: int) -> Pieces:
    begin = keep(0, many(b"K\x01", _half(size)))
    few = b"](K\x01e"
    names = ["pca_mean", "explained_variance_ratio", "safe_min", "safe_max", "warning_min", "warning_max", "step_size"]
    shared = mapped((text(f"f{n}"), get(0)) for n in range(_half(size, 12)))
    return begin, mapped(
        [
            (text("pca_components"), b"](" + few + b"e"),
            *((text(n), few) for n in names),
            (text("feature_correlations"), shared),
        ]
    )


# --- where ----------------------------------------------------------------------------------------------------------


PLACES = [
    "format",
    "version",
    "metadata",
    "metadata.k",
    "metadata.name",
    "metadata.description",
    "metadata.tags",
    "metadata.training_epochs",
    "model_state_dict",
    "model_state_dict.encoder.convs.0.weight",
    "model_state_dict.k",
    "latent_dim",
    "spectrogram_config",
    "spectrogram_config.sample_rate",
    "latent_analysis",
    "latent_analysis.k",
    "latent_analysis.n_active_components",
    "training_config",
    "training_config.k",
    "training_config.chunk_duration_s",
    "provenance",
    "provenance.k",
    "optimizer_state_dict.k",
    "metrics_history",
    "metrics_history.epoch_metrics",
    "epoch",
    "train_loss",
    "state_dict",
    "state_dict.k",
    "model_type",
    "decoder_activation",
    "vocoder_state",
    "normalization_stats",
]
_OF_CHECKPOINTS = ("model_state_dict", "state_dict", "optimizer_state_dict", "epoch", "train_loss", "model_type",
                   "metrics_history")  # fmt: skip


def skeleton(place: str, value: bytes) -> bytes:
    """A model's dict that is also a checkpoint's, with a value at one place in it; at the top for no place."""
    inner: dict[str, dict[str, bytes]] = {
        "metadata": {"name": text("n"), "model_id": text("m")},
        "model_state_dict": {"encoder.convs.0.weight": b"N"},
        "spectrogram_config": {},
        "training_config": {"latent_dim": b"K\x08"},
    }
    values = {"format": text("sda_model"), "version": b"K\x01"}
    holder, _, key = place.partition(".")
    if key:
        inner.setdefault(holder, {})[key] = value
    for title, items in inner.items():
        values[title] = mapped((text(key), item) for key, item in items.items())
    if place and not key:
        values[place] = value
    if holder in _OF_CHECKPOINTS:
        del values["format"]  # else it is not looked at as a checkpoint
    return mapped((text(key), item) for key, item in values.items()) if place else value


def hostile_pickle(kind: str, place: str, size: int, protocol: int = 4) -> bytes:
    """A whole pickle of a kind, of about this size, with what costs at this place."""
    begin, value = KINDS[kind](size)
    return b"\x80" + bytes([protocol]) + begin + skeleton(place, value) + b"."


def any_hostile(chance: random.Random) -> tuple[str, bytes]:
    """One of them, and what it is called."""
    kind, place = chance.choice(list(KINDS)), chance.choice(["", *PLACES])
    size = chance.choice([300, 3_000, 30_000, 250_000, 700_000, 2_000_000])
    return f"{kind} as {place or 'all'}, {size}", hostile_pickle(kind, place, size)
