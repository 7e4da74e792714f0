"""Looking at pickles without running them, and making plain values of what was in them."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import BrokenModelError, ModelFileError, NotAModelError, UnsafeModelError
from sda_daemon.models.header import read_model_header
from sda_daemon.torchfile.faults import Fault
from sda_daemon.torchfile.pickles import walk_pickle
from sda_daemon.torchfile.plain import MAX_VALUES, plain_value
from sda_daemon.torchfile.stand_ins import StandIn, stand_in_class
from sda_daemon.torchfile.unpickler import InertUnpickler
from sda_daemon.torchfile.values import list_of
from tests.library.model_files import write_model, write_payload

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5) | st.tuples(inner, inner),
    max_leaves=30,
)


@given(VALUES, st.integers(0, 3), st.binary(max_size=20))
def test_any_honest_pickle_is_walked_to_its_end(value: Any, protocol: int, behind: bytes) -> None:
    """Without a name in it, and whatever follows."""
    data = pickle.dumps(value, protocol)
    outline = walk_pickle(data + behind)
    assert outline.end == len(data)
    assert outline.names <= {"_codecs.encode", "__builtin__.bytes"}
    assert walk_pickle(b"junk" + data, 4).end == 4 + len(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    """An end inside the data, or a ValueError: nothing else."""
    with contextlib.suppress(ValueError):
        assert 0 < walk_pickle(data).end <= len(data)


@given(VALUES)
def test_many_memo_places_are_honest(value: Any) -> None:
    """Pickles with thousands of remembered objects use long indices."""
    data = pickle.dumps([value, [[] for _ in range(400)], [str(n) for n in range(400)]], 2)
    assert walk_pickle(data).end == len(data)
    assert any(op.name == "LONG_BINPUT" for op, _, _ in pickletools.genops(data))


def test_names_are_found_in_both_spellings() -> None:
    """GLOBAL and INST; they are what would be imported."""
    data = pickle.dumps(OrderedDict(a=Path("x")), 2)
    assert walk_pickle(data).names >= {"collections.OrderedDict"}
    assert walk_pickle(b"(S'ls'\nios\nsystem\n.").names == {"os.system"}


@pytest.mark.parametrize(
    "data",
    [b"\x80\x02}r\xff\xff\xff\x7f.", b"}p999999999\n.", b"}p99999999999999999999\n.", b"X\xff\xff\xff\xffabc.", b"\xff",
     b"", b"}", b"cos\n", b"c" + b"a" * 10_000 + b"\n\n."],
)  # fmt: skip
def test_hostile_pickles_are_refused(data: bytes) -> None:
    """Memo bombs, lengths beyond the end, unknown opcodes, names without an end."""
    with pytest.raises(ValueError, match=r".+"):
        walk_pickle(data)


def read_in_a_process(data: bytes, folder: Path) -> int:
    """Load a torch file with this pickle in a process of its own; return its exit status."""
    with zipfile.ZipFile(folder / "x.sda", "w") as archive:
        archive.writestr("x/data.pkl", data)
    program = """
import sys
from pathlib import Path
from sda_daemon.errors import ModelFileError
from sda_daemon.models.header import read_pickled_dict
try:
    read_pickled_dict(Path(sys.argv[1]))
except ModelFileError:
    sys.exit(3)
"""
    return subprocess.run([sys.executable, "-c", program, folder / "x.sda"], check=False, timeout=120).returncode


DEEP = 150_000
DEEP_KEYS = {
    "one in the other": b"N" + b"\x85" * DEEP,
    "pairs": b"(NN\x86" + b"N\x86" * DEEP + b"N\x86t",
    "by marks": b"(" * DEEP + b"t" * DEEP,
    "by the memo": b"Nq\x000" + b"h\x00\x85q\x000" * DEEP + b"h\x00",
    "by the large memo": b"N\x850"
    + b"Nr\x05\x00\x00\x000"
    + b"j\x05\x00\x00\x00\x85r\x05\x00\x00\x000" * DEEP
    + b"g5\n",
    "by another memo": b"N\x94" + b"".join(b"0j%b\x85\x94" % struct.pack("<I", index) for index in range(DEEP)),
    "by doubles": b"N" + b"2\x86" * 20 + b"\x852" * DEEP,
    "as a persistent id": b"N" + b"\x85Q" * DEEP,
    "with calls between": b"N" + b"cm\nC\n)R0\x85" * DEEP,
    "behind a set": b"N" + b"\x85" * DEEP + b"(2\x910",
    "in a set": b"(N" + b"\x85" * DEEP + b"\x91",
}


@pytest.mark.parametrize("case", DEEP_KEYS)
def test_deep_keys_do_not_kill(case: str, tmp_path: Path) -> None:
    """Python computes a tuple's hash by recursion without a guard: the process would die of a signal."""
    data = b"\x80\x04}" + DEEP_KEYS[case] + b"Ns."
    if case != "with calls between":  # which has too many names
        assert walk_pickle(b"junk" + data + b"behind", 4).end == 4 + len(data)
    assert read_in_a_process(data, tmp_path) in (0, 3)


def shared(depth: int, wrap: bytes = b"h\x00h\x00\x86q\x000") -> bytes:
    """Pairs of one and the same pair, so many levels deep: in the first place of the memo."""
    return b"Nq\x000" + wrap * depth


COSTLY_KEYS = {
    "pairs of pairs": b"}" + shared(60) + b"h\x00Ns",
    "pairs of pairs in a set": b"\x8f(" + shared(60) + b"h\x00\x90",
    "pairs of pairs in a frozen set": b"(" + shared(60) + b"h\x00\x91",
    "calls with pairs of pairs": b"}" + shared(60) + b"cm\nC\nh\x00RNs",
    "integers of one hash": b"}(" + b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little", signed=True) + b"N" for n in range(9, 40_009)) + b"u",
    "decimal integers of one hash": b"}(" + b"".join(b"L%dL\nN" % (n * (2**61 - 1)) for n in range(9, 40_009)) + b"u",
    "integers of one hash in a set": b"\x8f(" + b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little", signed=True) for n in range(9, 40_009)) + b"\x90",
    "tuples of one hash": b"}(" + b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little", signed=True) + b"\x85N" for n in range(9, 40_009))
    + b"u",
    "a long integer as a key, often": b"\x8b" + struct.pack("<I", 10**6) + b"\x01" * 10**6 + b"q\x000]("
    + b"}h\x00Ns" * 50_000 + b"e",
    "a long tuple as a key, often": b"(" + b"N" * 100_000 + b"tq\x000](" + b"}h\x00Ns" * 50_000 + b"e",
    "a long tuple as arguments, often": b"(" + b"N" * 50_000 + b"tq\x000](" + b"cm\nC\nh\x00R" * 9_000 + b"e",
    "rather long arguments, often": b"(" + b"N" * 900 + b"tq\x000cm\nC\nq\x010](" + b"h\x01h\x00R" * 200_000 + b"e",
    "shared lists that are called": b"]q\x000" + b"](h\x00h\x00eq\x000" * 60 + b"h\x00)R",
    "shared lists as state": b"cm\nC\n)R]q\x000" + b"](h\x00h\x00eq\x000" * 60 + b"h\x00b",
    "frozen sets of one list": b"](" + b"N" * 100_000 + b"eq\x000](" + b"(h\x00\x91" * 50_000 + b"e",
    "a list as a frozen set, by a storage": b"](" + b"N" * 100_000 + b"eq\x000](" + b"h\x00Q" * 50_000 + b"e",
    "a dict of a dict, often": b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(50_000))
    + b"uq\x000](" + b"ccollections\nCounter\nh\x00\x85R" * 5_000 + b"e",
}  # fmt: skip


@pytest.mark.parametrize("case", COSTLY_KEYS)
def test_what_is_small_costs_little(case: str) -> None:
    """Hours of hashing, or gigabytes, in less than a megabyte: now at most a second of CPU and 50 MB beyond 3 n.

    The limits are ten times as wide as what is measured: machines are slow.
    """
    data = b"\x80\x04" + COSTLY_KEYS[case] + b"."
    tracemalloc.start()
    began = time.process_time()
    with contextlib.suppress(Fault):
        InertUnpickler(walk_pickle(data)).load()
    taken_s, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken_s < 10
    assert peak < 50 * 2**20 + 3 * len(data)


def test_tuples_large_integers_and_sets_are_what_they_were() -> None:
    """As values, as keys, in each other, and where they stand in more than one place."""
    pair, large = (1, "x"), 2**70
    value = {
        "pairs": [pair, pair], pair: large, large: {3, 4}, frozenset({5}): (large, ()), "nested": ((1, (2,)), [()]),
        "negative": -(2**64), "small": [2**31, 2**60, -(2**61)],
    }  # fmt: skip
    for protocol in range(6):
        found = InertUnpickler(walk_pickle(pickle.dumps(value, protocol), wrap=True)).load()
        assert tuple(found["pairs"][0]) == pair
        assert found["pairs"][0] is found["pairs"][1]
        assert [int(number) for number in found["small"]] == value["small"]
        assert int(found["negative"]) == -(2**64)
        keys = list(found)
        assert (tuple(keys[1]), int(keys[2])) == (pair, large)
        assert int(found[keys[1]]) == large
        assert sorted(list_of(found[keys[2]]) or []) == [3, 4]
        assert [tuple(item) if isinstance(item, tuple) else item for item in found["nested"][0]] == [1, (2,)]


@pytest.mark.parametrize("protocol", range(1, 6))
def test_many_flat_tuples_are_honest(protocol: int) -> None:
    """A history of 50,000 pairs, with all else that there is in a pickle: text, bytes, numbers, sets, objects."""
    odd = [
        2**70,
        -(2**3000),
        1.5,
        "x" * 300,
        "y" * 70_000,
        b"z" * 300,
        bytearray(b"a"),
        {1},
        frozenset({2}),
        np.float32(1),
    ]
    value = {
        "pairs": [(n, (n + 0.5, str(n))) for n in range(50_000)],
        "odd": odd,
        (1, (2, ())): OrderedDict(a=Path("x")),
    }
    data = pickle.dumps(value, protocol)
    assert walk_pickle(data + b"behind").end == len(data)


def test_texts_with_the_bytes_of_tuples_are_honest() -> None:
    """They are told from opcodes."""
    data = pickle.dumps({"text": "t" * 100_000, "more": ["attest"] * 10 + [f"t{n}" for n in range(30_000)]}, 2)
    assert walk_pickle(data).end == len(data)


def test_too_many_names_are_refused() -> None:
    """Each becomes a class: a thousand bytes of memory for ten of the file."""
    with pytest.raises(ValueError, match="more than 10,000 classes and functions"):
        walk_pickle(b"\x80\x02(" + b"".join(b"cm\nn%d\n" % n for n in range(20_000)) + b"t.")


# --- plain values -----------------------------------------------------------------------------------


def plain(value: Any) -> tuple[Any, list[tuple[str, str]]]:
    dropped: list[tuple[str, str]] = []
    return plain_value(value, lambda where, what: dropped.append((where, what)), "top"), dropped


def test_foreign_values_become_plain_or_go() -> None:
    """Enums their value, paths their text, numpy numbers numbers; all else is told of."""
    preset, path = stand_in_class("app.Preset")("calm"), stand_in_class("pathlib.PosixPath")("/", "a", "b")
    odd = stand_in_class("app.Odd")("calm")
    odd.__setstate__({"x": 1})
    value = {
        "preset": preset, "path": path, "odd": odd, "two": stand_in_class("app.Two")(1, 2), "n": np.float32(0.5),
        "array": np.zeros(3), "tuple": (1, (2,)), "set": {1}, 5: "five", (1, 2): "pair", "huge": 10**40,
    }  # fmt: skip
    kept, dropped = plain(value)
    assert kept == {"preset": "calm", "path": "/a/b", "n": 0.5, "tuple": [1, [2]], "set": [1], "5": "five"}
    assert dropped == [
        ("top.odd", "app.Odd"),
        ("top.two", "app.Two"),
        ("top.array", "numpy array"),
        ("top", "key of type tuple"),
        ("top.huge", "a number of more than 64 bits"),
    ]


def test_too_many_values_are_cut_off_and_told_once() -> None:
    """However they are nested."""
    kept, dropped = plain({"list": [[0] * 1000] * 1000, "after": 1})
    assert sum(len(row) for row in kept["list"]) <= MAX_VALUES
    assert [what for _, what in dropped] == ["too many values"]


def test_stand_ins_do_nothing() -> None:
    """They take all that a pickle can ask of an object, and keep none of it but arguments and state."""
    odd = stand_in_class("a.b.Odd")(1, 2)
    odd["key"] = "value"
    odd.append(1)
    odd.extend([1])
    assert isinstance(odd, StandIn)
    assert (odd.args, odd.state, odd.foreign_name) == ((1, 2), None, "a.b.Odd")


# --- headers ----------------------------------------------------------------------------------------


class Preset(Enum):
    CALM = "calm"


class Bomb:
    def __reduce__(self) -> Any:
        return eval, ("open('went-off', 'w')",)


def test_a_header_is_read_without_running_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign classes and calls are inert here too; the metadata is all that counts."""
    monkeypatch.chdir(tmp_path)
    payload = {
        "format": "sda_model",
        "version": 1,
        "metadata": {"model_id": "x", "name": Preset.CALM, "tags": ["a", "b"], "final_val_loss": 1},
        "latent_analysis": {"n_active_components": 7},
        "provenance": {"source_file": "a.pt", "odd": Preset},
        "training_config": Preset.CALM,
    }
    write_payload(tmp_path / "x.sda", payload)
    header = read_model_header(tmp_path / "x.sda")
    # Python 3.11.0 to 3.11.3 write an enum member by its name, others by its value.
    name = "CALM" if b"getattr" in pickle.dumps(Preset.CALM, 2) else "calm"
    assert (header.metadata.name, header.metadata.tags, header.metadata.final_val_loss) == (name, ["a", "b"], 1.0)
    assert (header.metadata.has_analysis, header.metadata.n_active_components) == (True, 7)
    assert header.provenance == {"source_file": "a.pt"}
    write_payload(tmp_path / "y.sda", {**payload, "training_config": Bomb()})
    with pytest.raises(UnsafeModelError, match=r"wants to call builtins\.eval; nothing of it was run"):
        read_model_header(tmp_path / "y.sda")
    assert not (tmp_path / "went-off").exists()


def test_a_header_says_what_load_model_says(tmp_path: Path) -> None:
    """Of a file that this program wrote."""
    from sda_daemon.demo.checkpoints import SMALL_MELS, made_up_analysis, small_model
    from sda_daemon.models import ModelMetadata, load_model, save_model

    metadata = ModelMetadata(name="Größe", tags=["t"], final_val_loss=float("inf"), dataset_total_duration_s=1.5)
    path = save_model(small_model(), SMALL_MELS.to_dict(), {}, metadata, tmp_path, made_up_analysis())
    header = read_model_header(path)
    assert header.metadata == load_model(path).metadata == metadata
    assert (header.latent_dim, header.size_bytes) == (8, path.stat().st_size)
    assert header.provenance["weights_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    "metadata",
    [{"name": "x" * 200_000}, {"name": {}}, {"training_epochs": float("nan")},
     {"final_val_loss": "low"}, {"dataset_file_count": []}],
)  # fmt: skip
def test_odd_metadata_is_refused(metadata: dict[str, Any], tmp_path: Path) -> None:
    """It would go into the index, which other programs read."""
    write_payload(tmp_path / "x.sda", {"format": "sda_model", "version": 1, "metadata": metadata})
    with pytest.raises(BrokenModelError, match=next(iter(metadata))):
        read_model_header(tmp_path / "x.sda")


def test_hostile_headers_are_refused(tmp_path: Path) -> None:
    """A memo bomb, lists that share their items, compression, damage, a link, nothing of torch."""
    path = tmp_path / "x.sda"

    def with_pickle(data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("m/data.pkl", data)
        return path

    bomb: Any = ["x"]
    for _ in range(30):
        bomb = [bomb] * 10
    sharing = {"format": "sda_model", "version": bomb, "metadata": {"name": bomb}}
    hostile = [
        (b"\x80\x02}r\xff\xff\xff\x7f.", zipfile.ZIP_STORED),
        (pickle.dumps(sharing, 2), zipfile.ZIP_STORED),
        (pickle.dumps({**sharing, "version": 1}, 2), zipfile.ZIP_STORED),
        (pickle.dumps({"format": "sda_model"}, 2), zipfile.ZIP_DEFLATED),
        (b"\x80\x02]" + b"]" * 100_000 + b".", zipfile.ZIP_STORED),
        (b"\x80\x02].", zipfile.ZIP_STORED),
    ]
    for data, compression in hostile:
        with pytest.raises(ModelFileError):
            read_model_header(with_pickle(data, compression))
    write_model(tmp_path / "good.sda")
    raw = (tmp_path / "good.sda").read_bytes()
    path.write_bytes(raw.replace(b"good", b"evil"))
    with pytest.raises(BrokenModelError, match="damaged"):
        read_model_header(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(NotAModelError):
        read_model_header(path)
    path.unlink()
    path.symlink_to(tmp_path / "good.sda")
    with pytest.raises(OSError, match="symbolic"):
        read_model_header(path)


@given(st.binary(max_size=300), st.integers(0, 10_000))
def test_no_damage_gets_through(tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int) -> None:
    """Any bytes put over any place of a file: the same header, or a clear error."""
    folder = tmp_path_factory.mktemp("damage")
    write_model(folder / "x.sda", name="whole")
    raw = bytearray((folder / "x.sda").read_bytes())
    begin = place % len(raw)
    raw[begin : begin + len(junk)] = junk
    (folder / "x.sda").write_bytes(raw)
    with contextlib.suppress(ModelFileError):
        assert read_model_header(folder / "x.sda").metadata.name == "whole"
