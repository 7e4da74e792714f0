"""Replacing one value inside a pickle and nothing else."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sda_daemon.models.torch_file import read_torch_file
from sda_daemon.torchfile.comparison import is_same
from sda_daemon.torchfile.pickles import walk_pickle
from sda_daemon.torchfile.splice import encode_plain, encode_value, replace_value
from sda_daemon.torchfile.unpickler import InertUnpickler
from sda_daemon.torchfile.values import plain_analysis

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_encoded_values_are_what_they_were(value: Any) -> None:
    """Python's own unpickler reads back what was written."""
    assert pickle.loads(b"\x80\x02" + encode_plain(value) + b".") == value


@given(
    st.dictionaries(st.text(), PLAIN, max_size=5),
    st.dictionaries(st.text(), PLAIN),
    PLAIN,
    st.dictionaries(st.text(), PLAIN),
)
def test_only_the_one_value_changes(
    before: dict[str, Any], old: dict[str, Any], after: Any, new: dict[str, Any]
) -> None:
    """Whatever stands before and after it, texts shared with it included, loads as it did."""
    shared = list(old)
    content = {**before, "metadata": old, "later": after, "shared texts": shared, "again": dict.fromkeys(old, 1)}
    data = pickle.dumps(content, protocol=2)
    changed = pickle.loads(replace_value(data, "metadata", new))
    expected = {**content, "metadata": new}
    assert changed == expected
    assert list(changed) == list(expected)


def test_twice_is_as_good_as_once() -> None:
    """The result can be edited again, and does not grow."""
    data = pickle.dumps({"a": "x" * 10, "metadata": {"name": "x" * 10}, "z": ["x" * 10]}, protocol=2)
    once = replace_value(data, "metadata", {"name": "one"})
    twice = replace_value(replace_value(once, "metadata", {"name": "something longer"}), "metadata", {"name": "one"})
    assert once == twice


def test_the_old_value_is_gone() -> None:
    """What someone took out of a description is not in the file any more."""
    data = pickle.dumps({"metadata": {"description": "a secret"}, "z": 1}, protocol=2)
    assert b"a secret" not in replace_value(data, "metadata", {"description": ""})


def test_classes_and_their_state_stay() -> None:
    """Operations that make objects are copied, never run."""
    state = OrderedDict(weights=bytearray(b"123"))
    data = pickle.dumps({"state": state, "metadata": {}, "other": {1, 2}}, protocol=2)
    changed = pickle.loads(replace_value(data, "metadata", {"name": "x"}))
    assert changed == {"state": state, "metadata": {"name": "x"}, "other": {1, 2}}


@pytest.mark.parametrize(
    ("content", "protocol", "reason"),
    [
        ({"other": 1}, 2, "it has no 'metadata'"),
        (["metadata", {}], 2, "plain dict"),
        ({"metadata": {}}, 4, "not written the way torch does it"),
    ],
)
def test_what_is_not_understood_is_refused(content: Any, protocol: int, reason: str) -> None:
    """Better no edit than a wrong one."""
    with pytest.raises(ValueError, match=reason):
        replace_value(pickle.dumps(content, protocol=protocol), "metadata", {})


def test_what_is_shared_stays_with_the_others() -> None:
    """Lists, texts and numbers of numpy that other parts of the file refer to are still theirs, and still shared."""
    tags, number, row = ["x", "y"], np.float64(0.5), np.arange(3.0)
    old: dict[str, Any] = {
        "tags": tags,
        "number": number,
        "pair": ("a", tags),
        "row": row,
        "kinds": [np.int64(1), np.float32(2)],
    }
    old["same"] = [row, tags, row]
    old["itself"] = [1]
    old["itself"].append(old["itself"])
    rest = {"z": tags, "itself": [], "again": [tags, number, "y"], "pair": old["pair"], "row": row, "all": [old, old]}
    rest |= {"more": [np.int64(7), np.float32(8), np.array([1, 2]), row]}
    data = pickle.dumps({"metadata": old, **rest}, protocol=2)
    changed = pickle.loads(replace_value(data, "metadata", {"tags": []}))
    assert changed["metadata"] == {"tags": []}
    assert changed["all"][0]["itself"][1] is changed["all"][0]["itself"]
    del changed["all"][0]["itself"], old["itself"]
    assert same({key: changed[key] for key in rest}, rest)
    assert changed["all"][0]["same"][0] is changed["all"][0]["same"][2] is changed["row"]
    assert changed["z"] is changed["again"][0] is changed["pair"][1] is changed["all"][0]["tags"]
    assert changed["all"][0] is changed["all"][1]
    assert changed["row"] is changed["more"][3]


@given(st.data())
def test_whatever_is_shared_stays_with_the_others(data: st.DataObject) -> None:
    """Whichever things an old value has in common with the rest of a file, and in whichever depth."""
    pool: list[Any] = [
        *data.draw(st.lists(PLAIN | ARRAYS, min_size=1, max_size=5)),
        np.float64(0.5),
        ("a", np.int32(3)),
        "text",
    ]
    some = st.lists(st.sampled_from(range(len(pool))), max_size=4)
    for _ in range(3):
        pool.append([pool[index] for index in data.draw(some)])
        pool.append({str(index): pool[index] for index in data.draw(some)})
        pool.append(tuple(pool[index] for index in data.draw(some)))
    old, before, after = ([pool[index] for index in data.draw(some)] for _ in range(3))
    content = {"before": before, "metadata": old, "after": after, "number": np.float64(7), "again": after}
    changed = pickle.loads(replace_value(pickle.dumps(content, protocol=2), "metadata", None))
    assert same(changed, {**content, "metadata": None})
    assert changed["after"] is changed["again"]


def test_what_is_changed_from_elsewhere_is_refused() -> None:
    """A list that grows after the value ends: where it belongs cannot be told."""
    data = pickle.dumps({"metadata": {"tags": ["x"]}, "z": 1}, protocol=2)
    lists = [position for operation, _, position in pickletools.genops(data) if operation.name == "EMPTY_LIST"]
    at = data[(lists[0] or 0) + 2]
    grown = data[:-1] + b"X\x01\x00\x00\x00lh" + bytes([at]) + b"K\x05as."
    assert pickle.loads(grown)["l"] == ["x", 5]
    with pytest.raises(ValueError, match="shares a value"):
        replace_value(grown, "metadata", {})


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    """Nothing but ValueError comes of bytes that are no pickle."""
    with pytest.raises(ValueError, match=r"."):
        replace_value(b"\x80\x02" + junk, "metadata", {})


# --- arrays -----------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["<f8", "<f4", "<f2", ">f8", ">i2", "<i8", "<i4", "|i1", "|u1", "<u4", "|b1"])
ARRAYS = NUMBERS.flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)
WITH_ARRAYS = st.dictionaries(
    st.text(), ARRAYS | ARRAYS.map(np.asfortranarray) | PLAIN | st.lists(ARRAYS, max_size=2), min_size=1, max_size=4
)
NUMPY: list[Any] = [
    (np.zeros(0).__reduce__()[0], "numpy._core.multiarray._reconstruct"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.ndarray,
    np.dtype,
    bytes,  # of an array without numbers
    *(type(np.dtype(kind)) for kind in "fdegbBhHiIlLqQ?"),
]


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to whoever reads them: arrays by type, shape and every bit of their numbers."""
    if isinstance(one, np.ndarray | np.generic):
        native = np.asarray(other).astype(np.asarray(other).dtype.newbyteorder("="))
        return one.dtype == native.dtype and one.shape == native.shape and one.tobytes() == native.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def torch_bytes(content: Any) -> tuple[bytes, bytes]:
    """Return a file of torch.save, and its pickle."""
    file = io.BytesIO()
    torch.save(content, file)
    raw = file.getvalue()
    return raw, torch._C.PyTorchFileReader(io.BytesIO(raw)).get_record("data.pkl")


def with_pickle(content: Any, data: bytes, path: Path) -> Path:
    """Write a file of torch.save in which another pickle stands."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(torch_bytes(content)[0]))
    writer = torch._C.PyTorchFileWriter(str(path))
    for name in reader.get_all_records():
        if name not in ("version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment"):
            record = data if name == "data.pkl" else reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_record("byteorder", sys.byteorder.encode(), len(sys.byteorder))
    writer.write_end_of_file()
    return path


@settings(max_examples=40)
@given(WITH_ARRAYS, WITH_ARRAYS, PLAIN)
def test_arrays_are_read_by_everyone(
    tmp_path_factory: pytest.TempPathFactory, new: dict[str, Any], there: dict[str, Any], after: Any
) -> None:
    """By torch as an application calls it, by torch at its strictest, and by this program; the rest is as it was."""
    weights = torch.arange(6.0).reshape(2, 3)
    content = {"weights": weights, "latent_analysis": None, "other": there, "again": [there, weights], "after": after}
    data = replace_value(torch_bytes(content)[1], "latent_analysis", new)
    path = with_pickle(content, data, tmp_path_factory.mktemp("file") / "x.pt")
    with torch.serialization.safe_globals(NUMPY):
        strict = torch.load(path, weights_only=True)
    for loaded in (torch.load(path, weights_only=False), strict):
        assert list(loaded) == list(content)
        assert same(loaded["latent_analysis"], new)
        assert same(loaded["other"], there)
        assert loaded["again"][0] is loaded["other"]
        assert torch.equal(loaded["weights"], weights)
        assert loaded["after"] == after
    ours = read_torch_file(path).content
    assert same({**ours["latent_analysis"]}, {str(key): value for key, value in new.items()})
    assert plain_analysis(ours["latent_analysis"]) is not None


@given(WITH_ARRAYS, WITH_ARRAYS)
def test_places_in_the_memo_are_nobody_elses(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Also when it is done again, and again, every other value stays."""
    row = np.arange(3.0)
    content = {"a": None, "b": [row, row], "c": None, "d": {"text": "shared", "row": row}, "e": "shared"}
    data = pickle.dumps(content, protocol=2)
    for value in (first, second):
        data = replace_value(replace_value(data, "a", value), "c", {"again": value, "more": np.float32(0.5)})
    loaded = pickle.loads(data)
    assert same(loaded["a"], second)
    assert same(loaded["c"]["again"], second)
    assert loaded["b"][0] is loaded["b"][1] is loaded["d"]["row"]
    assert loaded["d"]["text"] == loaded["e"] == "shared"


@pytest.mark.parametrize(
    "value",
    [np.array([object()]), np.array(["text"]), np.array([1 + 2j]), np.array(["2026-01-01"], "M8[D]")],
    ids=["objects", "texts", "complex", "times"],
)
def test_only_numbers_go_into_a_file(value: Any) -> None:
    """What some program could not read, or must not run, is refused."""
    with pytest.raises(ValueError, match="not one of numbers"):
        encode_value({"deep": [value]}, 0)
    with pytest.raises(ValueError, match="no plain value"):
        encode_value([np.arange(3), {1, 2}], 0)


def read(value: Any) -> Any:
    """Return what this program's reader makes of a value."""
    return InertUnpickler(walk_pickle(pickle.dumps(value, protocol=2))).load()


@given(ARRAYS, ARRAYS)
def test_arrays_are_compared_by_type_shape_and_bytes(one: Any, other: Any) -> None:
    """As arrays, and as what stands for them in a file that was read."""
    alike = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    views: list[Callable[[Any], Any]] = [lambda value: value, read]
    for view in views:
        assert is_same(view({"x": one}), view({"x": one.copy()}))
        assert is_same(view([one]), view([other])) == alike
        assert not is_same(view([one]), view([one.astype("<f8") if one.dtype != np.dtype("<f8") else None]))
    assert not is_same(math.nan, one)
