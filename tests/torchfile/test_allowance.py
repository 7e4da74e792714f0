"""What little in a file can ask for much: each kind is refused before it is done, and what is honest is not."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sda_daemon.torchfile.allowance import FREE_UNITS, ODD_KEY_UNITS, begin_file, spend
from sda_daemon.torchfile.faults import Damaged, Oversized
from sda_daemon.torchfile.pickles import walk_pickle
from sda_daemon.torchfile.plain import MAX_VALUES, plain_value
from sda_daemon.torchfile.reader import read_contents
from sda_daemon.torchfile.unpickler import InertUnpickler
from tests.torchfile.hostile import write_pickle

PADDING = "x" * 70_000
"""So that a pickle is not small."""
TOO_MANY_KEYS = 3 * FREE_UNITS // ODD_KEY_UNITS


def load(data: bytes) -> Any:
    """Return what this program's reader makes of a pickle."""
    return InertUnpickler(walk_pickle(data)).load()


def test_a_file_may_cost_more_the_larger_it_is() -> None:
    """And what one has spent is not the next one's fault."""
    for size_bytes in (0, 1_000_000):
        begin_file(size_bytes)
        spend(FREE_UNITS + size_bytes)
        with pytest.raises(Oversized, match="many times as much time or memory"):
            spend(1)
    begin_file(0)
    spend(1)


@pytest.mark.parametrize("protocol", range(6))
def test_dicts_are_what_they_were(protocol: int) -> None:
    """With keys of whatever kind, in small pickles and in others, in whichever protocol, shared or not."""
    inner = {n: {} for n in range(500)} | {0.5: 1, None: 2, True: 3, "text": {}}
    value: dict[Any, Any] = {"inner": inner, "again": inner, "empty": {}, "ordered": OrderedDict(a=1, b={})}
    for content in (value, {**value, "padding": PADDING}):
        loaded = load(pickle.dumps(content, protocol))
        assert loaded == content
        assert loaded["inner"] is loaded["again"]


@pytest.mark.parametrize("padding", ["", PADDING], ids=["small", "large"])
def test_dicts_that_are_made_of_a_row(padding: str) -> None:
    """As some programs write protocol 0: keys and values in turn, then the dict."""
    row = b"(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00b(X\x01\x00\x00\x00cNdd"
    data = b"\x80\x02(" + row + b"X" + struct.pack("<I", len(padding)) + padding.encode() + b"t."
    assert load(data) == ({"a": 1, "b": {"c": None}}, padding)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_whole_numbers_as_keys_are_few(protocol: int, kind: type[dict[Any, Any]]) -> None:
    """Numbers can be chosen so that a dict of them takes minutes; texts cannot, and lists of numbers are only lists."""
    keys = range(0, 70 * TOO_MANY_KEYS, 70)
    with pytest.raises(Oversized):
        load(pickle.dumps(kind.fromkeys(keys, PADDING[0]), protocol))
    assert load(pickle.dumps(kind.fromkeys(map(str, keys)), protocol)) == kind.fromkeys(map(str, keys))
    assert load(pickle.dumps(list(keys), protocol)) == list(keys)


def test_honest_numbers_as_keys_are_many() -> None:
    """Steps, indexes and pairs of them."""
    for content in (
        {n: n / 3 for n in range(60_000)},
        {(n,): n for n in range(10_000)},
        {n * 100: n for n in range(9_000)},
    ):
        assert {
            key if isinstance(key, int) else tuple(key): value for key, value in load(pickle.dumps(content, 2)).items()
        } == content


GETATTR = b"cbuiltins\ngetattr\n"


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        # One attribute of the other, each with a longer name; and the same one, made anew each time.
        (lambda: b"capp\nThing\nq\x000" + (GETATTR + b"h\x00X\x0a\x00\x00\x00" + b"a" * 10 + b"\x86Rq\x000") * 500,
         Oversized),
        (lambda: b"capp\nThing\nq\x000X\x01\x00\x00\x00aq\x010" + (GETATTR + b"h\x00h\x01\x86R0") * 9_000, Oversized),
        # A long row, handed to many calls: of a dict, of a class, of a name that is judged, of a union.
        (lambda: b"ccollections\nOrderedDict\nq\x000(" + b"N" * 5_000 + b"tq\x010" + b"h\x00h\x01R0" * 3_000, Damaged),
        (lambda: b"capp\nThing\nq\x000(" + b"N" * 5_000 + b"tq\x010" + b"h\x00h\x01R0" * 3_000, Oversized),
        (lambda: GETATTR + b"q\x000(" + b"N" * 5_000 + b"tq\x010" + b"h\x00h\x01R0" * 3_000, Oversized),
        (lambda: b"cfunctools\nreduce\nq\x000coperator\nor_\nq\x010](" + b"h\x01" * 5_000 + b"eq\x020"
         + b"h\x00h\x01h\x02\x86R0" * 3_000, Oversized),
        # A dict of many items, copied again and again.
        (lambda: b"ccollections\nCounter\nq\x000}(" + b"".join(b"X\x05\x00\x00\x00%05dN" % n for n in range(5_000))
         + b"uq\x010" + b"h\x00h\x01\x85R0" * 3_000, Oversized),
        # Many storages; one with a long name, with the name of a long class, with a count of many digits.
        (lambda: b"X\x07\x00\x00\x00storageq\x000ctorch\nFloatStorage\nq\x010"
         b"(h\x00h\x01X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tq\x020" + b"h\x02Q0" * 300_000, Oversized),
        (lambda: b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\xf0\x00\x00\x00" + b"0" * 240
         + b"X\x03\x00\x00\x00cpuK\x01tQ0", Damaged),
        (lambda: b"(X\x07\x00\x00\x00storagecapp\n" + b"A" * 900 + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ0",
         Damaged),
        (lambda: b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\xc8"
         + b"\x01" * 200 + b"tQ0", Damaged),
    ],
    ids=["attributes of attributes", "one attribute often", "a dict called with many", "a class called with many",
         "a judged name called with many", "unions", "copies", "storages", "a long storage", "a long class",
         "a large storage"],
)  # fmt: skip
def test_what_asks_for_much_is_refused(build: Any, fault: type[Exception]) -> None:
    """Wherever it is in a pickle, and in one of any size."""
    for padding in (b"", b"X" + struct.pack("<I", len(PADDING)) + PADDING.encode() + b"0"):
        with pytest.raises(fault):
            InertUnpickler(walk_pickle(b"\x80\x02" + padding + build() + b"N.", wrap=True), lenient=True).load()


@pytest.mark.parametrize(
    "build",
    [lambda: b"](" + b"]" * 2_000_000 + b"e.", lambda: b"](" + b"N\x85" * 1_000_000 + b"e.",
     lambda: b"](" + b"}q\x00(K\x01K\x02u" * 400_000 + b"e."],
    ids=["lists", "tuples", "dicts"],
)  # fmt: skip
def test_values_that_take_much_memory_are_refused(build: Any, tmp_path: Path) -> None:
    """Each has a byte or two in the file, and a hundred in memory."""
    path = write_pickle(tmp_path / "x.pt", b"\x80\x02" + build())
    with path.open("rb") as file, pytest.raises(Oversized, match="its size is worth"):
        read_contents(file, path.stat().st_size)


def test_a_long_history_is_read(tmp_path: Path) -> None:
    """Of sixty thousand steps, which is all numbers, and of binary data, which looks like anything."""
    names = ["loss", "kl", "rate"]
    records = [{"step": n, **{name: n / 7 + i for i, name in enumerate(names)}} for n in range(60_000)]
    content = {"metrics_history": records, "noise": np.random.default_rng(1).bytes(2_000_000)}
    path = write_pickle(tmp_path / "x.pt", pickle.dumps(content, 2))
    with path.open("rb") as file:
        found = read_contents(file, path.stat().st_size)
    assert found.content["metrics_history"] == records
    assert found.content["noise"].args[0].encode("latin-1") == content["noise"]


def test_keys_that_are_dropped_count_too() -> None:
    """One dict of odd keys, named often, is not walked through each time."""
    odd = {(n,): None for n in range(1_000)}
    dropped: list[str] = []
    plain_value([odd] * 10_000, lambda where, _what: dropped.append(where))
    assert len(dropped) <= MAX_VALUES + 1_000


def test_places_are_told_in_few_words() -> None:
    """Long keys inside long keys: what was dropped is still told, of the place only its beginning."""
    value: Any = {"bad": object()}
    for _ in range(20):
        value = {"k" * 50_000: value}
    dropped: list[tuple[str, str]] = []
    plain_value(value, lambda where, what: dropped.append((where, what)))
    assert [what for _, what in dropped] == ["object"]
    assert len(dropped[0][0]) < 1_000
