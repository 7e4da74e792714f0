"""What little in a file can ask for much: each kind is refused before it is done, and what is honest is not."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, small_model
from sda_daemon.errors import OversizedCheckpointError
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.inspection import inspect_file
from sda_daemon.torchfile.allowance import FREE_UNITS, KEY_UNITS, begin_file, spend
from sda_daemon.torchfile.comparison import is_same
from sda_daemon.torchfile.faults import Damaged, Oversized
from sda_daemon.torchfile.pickles import walk_pickle
from sda_daemon.torchfile.plain import MAX_VALUES, plain_value
from sda_daemon.torchfile.reader import read_contents
from sda_daemon.torchfile.stand_ins import FloatKey, LargeInteger
from sda_daemon.torchfile.unpickler import InertUnpickler
from tests.torchfile.hostile import write_pickle

PADDING = "x" * 70_000
"""So that a pickle is not small."""
TOO_MANY_KEYS = 2 * FREE_UNITS // KEY_UNITS


def load(data: bytes) -> Any:
    """Return what this program's reader makes of a pickle."""
    return InertUnpickler(walk_pickle(data)).load()


def test_a_file_may_cost_more_the_larger_it_is() -> None:
    """And what one has spent is not the next one's fault."""
    for size_bytes in (0, 1_000_000):
        begin_file(size_bytes)
        spend(FREE_UNITS + size_bytes)
        with pytest.raises(Oversized, match=r"takes more than 0\.2 s or 2[01] MB, the most for a file of its size"):
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
        assert is_same(loaded, content)
        assert loaded["inner"] is loaded["again"]


@pytest.mark.parametrize("padding", ["", PADDING], ids=["small", "large"])
def test_dicts_that_are_made_of_a_row(padding: str) -> None:
    """As some programs write protocol 0: keys and values in turn, then the dict."""
    row = b"(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00b(X\x01\x00\x00\x00cNdd"
    data = b"\x80\x02(" + row + b"X" + struct.pack("<I", len(padding)) + padding.encode() + b"t."
    assert load(data) == ({"a": 1, "b": {"c": None}}, padding)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize(
    "keys",
    [
        range(60_000),
        [n << 16 for n in range(30_000)],
        [n * (2**61 - 1) for n in range(3_000)],
        [float(n << 40) for n in range(20_000)],
        [-n for n in range(20_000)],
    ],
    ids=["steps", "alike in their last bits", "of one hash", "floats", "negative"],
)
def test_numbers_as_keys(protocol: int, kind: type[dict[Any, Any]], keys: Any) -> None:
    """They are what they were, in their order, and however they were chosen, none takes longer than the others."""
    loaded = load(pickle.dumps({"at": kind.fromkeys(keys, PADDING[0])}, protocol))["at"]
    assert list(map(float, loaded)) == list(map(float, keys))
    assert set(loaded.values()) == {PADDING[0]}
    large = [key for key in loaded if abs(key) >= 2**12]
    assert {type(key) for key in large} <= {LargeInteger, FloatKey}  # hashed by what they are
    assert len(large) > 2_500


def test_keys_that_are_no_texts_are_counted() -> None:
    """There may be some hundred thousand of them."""
    with pytest.raises(Oversized):
        load(pickle.dumps(dict.fromkeys(range(TOO_MANY_KEYS)), 2))
    texts = dict.fromkeys(map(str, range(TOO_MANY_KEYS)))
    assert load(pickle.dumps(texts, 2)) == texts


def test_pairs_as_keys() -> None:
    """Of steps and names, say."""
    content = {(n,): n for n in range(10_000)}
    assert {tuple(key): value for key, value in load(pickle.dumps(content, 2)).items()} == content


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
    with (
        path.open("rb") as file,
        pytest.raises(Oversized, match=r"its values take more than \d\d MB, the most for a file of its size"),
    ):
        read_contents(file, path.stat().st_size)


@dataclasses.dataclass
class Step:
    """A record of a history."""

    step: int
    loss: float
    kl: float


HISTORIES: dict[str, Callable[[], Any]] = {
    "records": lambda: [{"step": n, "loss": n / 7, "kl": n / 3, "rate": 1e-3} for n in range(150_000)],
    "records of numpy's numbers": lambda: [
        {"step": n, "loss": np.float32(n / 7), "kl": np.float32(n / 3)} for n in range(50_000)
    ],
    "numpy's numbers": lambda: {"loss": [np.float64(n / 7) for n in range(50_000)]},
    "arrays": lambda: [np.array([n / 7, n / 3]) for n in range(50_000)],
    "objects": lambda: [Step(n, n / 7, n / 3) for n in range(100_000)],
    "pairs": lambda: [(n, n / 7) for n in range(200_000)],
    "pairs of texts": lambda: [(f"step {n}", str(n)) for n in range(100_000)],
    "by step": lambda: {n: n / 7 for n in range(100_000)},
    "by numpy's step": lambda: {np.int64(n): n / 7 for n in range(30_000)},
    "by time": lambda: {n / 7: n for n in range(100_000)},
    "by pair": lambda: {(n, n + 1): n for n in range(50_000)},
    "times": lambda: [datetime.datetime(2026, 1, 1) + datetime.timedelta(n) for n in range(50_000)],
    "ordered": lambda: [OrderedDict(step=n, loss=n / 3) for n in range(50_000)],
    "lists": lambda: {name: [n / 7 for n in range(500_000)] for name in ("loss", "kl")},
}


@pytest.mark.parametrize("case", HISTORIES)
def test_long_histories_convert(case: str, tmp_path: Path) -> None:
    """Of a training of many days: they are not kept, and no reason to refuse anything."""
    history = {"step_metrics": HISTORIES[case](), "epoch_metrics": []}
    content = {**checkpoint_dict(small_model().state_dict()), "metrics_history": history}
    torch.save(content, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").epoch == content["epoch"]
    found = inspect_file(tmp_path / "x.pt")
    assert (found.problems, found.left_out) == ([], [])
    assert {key.key: key.what for key in found.keys}["metrics_history"] == "dict of 2 keys"


def test_a_history_that_is_too_long_is_told_as_that(tmp_path: Path) -> None:
    """With what there is too much of, the limit and what to do; nobody is blamed."""
    history = [{str(n): n / 7} for n in range(800_000)]
    torch.save({**checkpoint_dict(small_model().state_dict()), "metrics_history": history}, tmp_path / "x.pt")
    most = (31 * 2**20 + 3 * (tmp_path / "x.pt").stat().st_size) / 1e6
    with pytest.raises(OversizedCheckpointError) as refused:
        read_checkpoint(tmp_path / "x.pt")
    assert str(refused.value) == (
        f"{tmp_path / 'x.pt'} is too costly to read: its values take more than {most:.0f} MB, the most for a file of "
        "its size. Save it again with less beside its weights, such as without its metrics history and optimizer"
    )


def test_what_was_read_of_a_long_history(tmp_path: Path) -> None:
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
