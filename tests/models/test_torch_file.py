"""Reading torch files: as torch itself reads them, but checked, and without what is not wanted."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import BrokenCheckpointError, CheckpointError
from sda_daemon.models.torch_file import read_torch_file
from sda_daemon.torchfile.stand_ins import StandIn

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool, torch.complex64]  # fmt: skip
ARRAYS = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def torch_reads(path: Path) -> Any:
    """What torch's own reader, which runs what it reads, makes of a file of ours."""
    return torch.load(path, weights_only=False)


def assert_same(one: Any, other: Any) -> None:
    """The same values, types, shapes, strides and sharing of memory's order."""
    assert type(one) is type(other) or all(isinstance(item, dict | torch.Tensor) for item in (one, other))
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.flags.f_contiguous) == (other.dtype, other.flags.f_contiguous)
        assert one.flags.writeable
        assert np.array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, twin in zip(one, other, strict=True):
            assert_same(item, twin)
    elif isinstance(one, StandIn):
        assert (one.foreign_name, one.args) == (other.foreign_name, other.args)
    else:
        assert one == other


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of all types, some of them views: transposed, sliced, expanded, empty, of no dimension."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    match draw(st.sampled_from(["whole", "transposed", "sliced", "expanded", "parameter"])):
        case "transposed" if len(shape) > 1:
            return tensor.transpose(0, 1)
        case "sliced" if shape and shape[0] > 1:
            return tensor[1:]
        case "expanded" if shape == [1]:
            return tensor.expand(3)
        case "parameter" if tensor.is_floating_point():
            return torch.nn.Parameter(tensor)
    return tensor


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Numpy arrays of all types and both orders, and numbers."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(draw(st.sampled_from(ARRAYS)))
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    return array.reshape(-1)[0] if draw(st.booleans()) and array.size else array


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    PLAIN | tensors() | arrays(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=2).map(OrderedDict)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_everything_is_read_as_torch_reads_it(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    """Tensors of any type and layout, arrays, numbers, containers: two readers, one result."""
    path = tmp_path_factory.getbasetemp() / "any.pt"
    torch.save(content, path)
    assert_same(read_torch_file(path).content, torch_reads(path))


def test_arrays_of_the_other_byte_order(tmp_path: Path) -> None:
    """They are what they were; torch's reader forgets about the order and makes other numbers of them."""
    array = np.array([[1.5, -2.0], [3.0, 4.0]], ">f4")
    torch.save({"array": array, "number": array[0, 1]}, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt").content
    assert np.array_equal(found["array"], array)
    assert found["number"] == -2.0


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    """Two views of one storage, and one list in two places."""
    whole, values = torch.arange(12.0), [1, 2]
    torch.save({"a": whole[:6], "b": whole[6:].reshape(2, 3), "c": values, "d": (values, values)}, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt").content
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()
    assert found["b"].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert found["c"] is found["d"][0] is found["d"][1]


def test_what_is_left_out_is_not_read(tmp_path: Path) -> None:
    """Not even if it is damaged: nothing of it goes anywhere."""
    path = tmp_path / "x.pt"
    torch.save({"wanted": torch.ones(4), "optimizer": torch.full((1000,), 7.25)}, path)
    damage(path, torch.full((1000,), 7.25).numpy().tobytes())
    found = read_torch_file(path, leave_out=lambda content: [key for key in content if key == "optimizer"]).content
    assert found["optimizer"] is None
    assert found["wanted"].tolist() == [1.0] * 4
    assert list(found) == ["wanted", "optimizer"]


def damage(path: Path, content: bytes) -> None:
    """Flip one bit in the middle of these bytes of the file."""
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("extra", [{}, {"unusual": torch.float16}])
def test_one_flipped_bit_is_noticed(tmp_path: Path, extra: dict[str, Any]) -> None:
    """A weight that is not what the trainer wrote would be heard, and never be found again; torch does not look."""
    weights = torch.linspace(0, 1, 1000)
    path = tmp_path / "x.pt"
    torch.save({"weights": weights, **extra}, path)
    damage(path, weights.numpy().tobytes())
    torch.load(path, weights_only=True)
    with pytest.raises(BrokenCheckpointError, match=r"part 'data/0' is damaged"):
        read_torch_file(path)


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    """`torch.serialization.set_crc32_options(False)` writes zeros; then only the whole content tells files apart."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weights": torch.ones(5)}, tmp_path / "x.pt")
        torch.save({"weights": torch.zeros(5)}, tmp_path / "y.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    one, other = read_torch_file(tmp_path / "x.pt"), read_torch_file(tmp_path / "y.pt")
    assert one.content["weights"].tolist() == [1.0] * 5
    assert one.digest != other.digest
    assert one.digest.startswith("sha256:")


def test_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    """A copy has the same, another number in a tensor or beside it another one; it is no weights' digest."""

    def digest(name: str, **content: Any) -> str:
        buffer = io.BytesIO()
        torch.save({"weights": torch.ones(5), **content}, buffer)
        (tmp_path / name).write_bytes(buffer.getvalue())
        return read_torch_file(tmp_path / name).digest

    same = {digest("a.pt"), digest("b.pt")}
    assert len(same) == 1
    assert len(same | {digest("c.pt", epoch=1), digest("d.pt", weights=torch.zeros(5)), digest("e.pt", epoch=2)}) == 4
    assert next(iter(same)).startswith("zip-sha256:")
    torch.save({"weights": torch.ones(5)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_torch_file(tmp_path / "old.pt").digest.startswith("sha256:")


def test_a_file_of_the_other_byte_order_is_turned_around(tmp_path: Path) -> None:
    """As torch's own reader does."""
    path = tmp_path / "x.pt"
    torch.save({"weights": torch.tensor([1.0, 2.0])}, path)
    turned = tmp_path / "turned.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(turned, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("/byteorder"):
                content = b"big"
            elif "/data/" in entry.filename:
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            new.writestr(entry.filename, content)
    assert read_torch_file(turned).content["weights"].tolist() == [1.0, 2.0]


def rewritten(path: Path, target: Path, old: bytes, new: bytes) -> Path:
    """Copy a torch file with other bytes in its pickle."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("/data.pkl"):
                assert old in content
                content = content.replace(old, new)
            made.writestr(entry.filename, content)
    return target


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x05", b"K\x50"),  # more elements than there are
        (b"FloatStorage", b"DoubleStorage"),  # elements larger than there is room for
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"),  # a storage that is not there
        (b"K\x05\x85", b"J\xff\xff\xff\xff\x85"),  # a negative size
    ],
)
def test_tensors_that_do_not_fit_their_bytes_are_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    """Whatever a pickle claims of a storage, no byte outside of it is read."""
    torch.save({"weights": torch.ones(5)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError):
        read_torch_file(rewritten(tmp_path / "x.pt", tmp_path / "y.pt", old, new))


def test_endless_tuples_are_not_written_out(tmp_path: Path) -> None:
    """Thirty pairs of pairs: a few bytes in the file, a thousand million values when written out."""
    nested: Any = (1, 2)
    for _ in range(30):
        nested = (nested, nested)
    torch.save({"nested": nested}, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt").content["nested"]
    assert found[0] is found[1]
