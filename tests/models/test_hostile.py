"""Files that are built to do harm: to fill the memory, to be read as something else than what was judged."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, small_model
from sda_daemon.errors import (
    BrokenCheckpointError,
    BrokenModelError,
    CheckpointError,
    MisfittingWeightsError,
    ModelFileError,
    NotAModelError,
    OversizedCheckpointError,
    UnsafeCheckpointError,
)
from sda_daemon.library.editing import write_edited
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.header import read_model_details, read_pickled_dict
from sda_daemon.models.inspection import inspect_file
from sda_daemon.models.loading import load_model
from sda_daemon.models.persistence import ModelMetadata, save_model
from sda_daemon.models.torch_file import read_torch_file
from sda_daemon.torchfile.allowance import begin_file
from sda_daemon.torchfile.globals import NameKind
from sda_daemon.torchfile.pickles import walk_pickle
from sda_daemon.torchfile.stand_ins import StorageRef, stand_in_class
from sda_daemon.torchfile.unpickler import InertUnpickler
from sda_daemon.torchfile.values import plain_analysis
from tests.torchfile.hostile import (
    SIDE_PARTS,
    directory_of,
    end_of,
    items,
    large_end_of,
    locator_of,
    number,
    text,
    write_parts,
    write_pickle,
)

MEBIBYTE = 2**20

# --- memory -----------------------------------------------------------------------------------------

LONG = text(b"x" * 400_000)
WIDE = b"}(" + b"".join(number(key) + b"N" for key in range(20_000)) + b"u"
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + number(400_000) + b"\x85cnumpy\ndtype\n" + text(b"u1")
    + b"\x85R\x89c_codecs\nencode\nh\x00" + text(b"latin1") + b"\x86Rtb"
)  # fmt: skip
BOMBS = {
    "a storage named by a text": items([b"h\x00Q"] * 1000, LONG),
    "a storage named by a list": items([b"h\x00Q"] * 1000, b"](" + b"N" * 50_000 + b"e"),
    "dicts made of a dict": items([b"ccollections\nOrderedDict\nh\x00\x85R"] * 1000, WIDE),
    "long names": items([b"h\x00" + text(b"n%d" % n) + b"\x93" for n in range(1000)], LONG),
    "many names": items([text(b"m") + text(b"n%d" % n) + b"\x93" for n in range(100_000)]),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_small_pickle_makes_no_large_thing(case: str, tmp_path: Path) -> None:
    """What is shared in a pickle is not copied for each mention of it; in the daemon's own process, too."""
    path = write_pickle(tmp_path / "x.sda", BOMBS[case])
    assert path.stat().st_size < 3 * MEBIBYTE
    with pytest.raises(BrokenModelError):
        read_pickled_dict(path)
    assert inspect_file(path).problems


ARRAY_BOMBS = {
    "arrays": items([ARRAY] * 400, LONG),
    "bytes": items([b"c_codecs\nencode\nh\x00" + text(b"latin1") + b"\x86R"] * 400, LONG),
}


@pytest.mark.parametrize("case", ARRAY_BOMBS)
def test_arrays_that_share_their_bytes_are_refused(case: str, tmp_path: Path) -> None:
    """400 kB in the file, 160 MB in memory."""
    path = write_pickle(tmp_path / "x.pt", ARRAY_BOMBS[case])
    with pytest.raises(OversizedCheckpointError, match="share bytes"):
        read_torch_file(path)


def test_an_analysis_of_one_array_in_many_places_is_cut_off(tmp_path: Path) -> None:
    """Also rows of nothing, of which there are a million million, and the same dict under many names."""
    array = InertUnpickler(walk_pickle(b"\x80\x02" + LONG + b"q\x000" + ARRAY + b".")).load()
    whole = plain_analysis({"one": array})
    assert whole is not None
    assert len(whole["one"]) == 400_000
    many = plain_analysis(dict.fromkeys(range(100), array) | {"dict": {n: [0] * 1000 for n in range(1000)}})
    assert many is not None
    assert sum(value is not None for value in many.values()) <= 3
    misfitting = ARRAY.replace(text(b"u1"), text(b"f8"))  # each would be looked at for a millisecond
    misfits = plain_analysis(InertUnpickler(walk_pickle(items([misfitting] * 3_000, LONG))).load())
    assert misfits == {str(n): None for n in range(3_000)}
    begin_file(0)
    nothing = stand_in_class("numpy.core.multiarray._reconstruct")()
    dtype = stand_in_class("numpy.dtype")("f4")
    nothing.__setstate__((1, (10**12, 0), dtype, False, b""))
    assert plain_analysis({"nothing": nothing, "text": {(1, 2): 3}}) == {"nothing": None, "text": {"(1, 2)": 3}}


def test_memory_that_runs_out_is_told(tmp_path: Path) -> None:
    """Torch's reader is not asked to try the same once more."""
    path = tmp_path / "x.pt"
    torch.save({"weights": torch.zeros(300 * MEBIBYTE, dtype=torch.uint8)}, path)
    program = """
import resource, sys
from pathlib import Path
import torch
from sda_daemon.errors import OversizedCheckpointError
from sda_daemon.models.torch_file import read_torch_file
torch.load = lambda *_a, **_k: sys.exit("torch was asked")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
try:
    read_torch_file(Path(sys.argv[1]))
except OversizedCheckpointError:
    sys.exit(3)
"""
    assert subprocess.run([sys.executable, "-c", program, path], check=False, timeout=120).returncode == 3


def test_what_a_checkpoint_has_beside_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An average of the weights, another optimizer: they would cost as much memory again. Not even damage matters."""
    extra = torch.full((5000,), 7.25)
    content: dict[Any, Any] = dict(checkpoint_dict(small_model().state_dict()))
    torch.save({**content, "ema_state_dict": {"w": extra}, "optimizer_d": [extra], 7: extra}, tmp_path / "x.pt")
    raw = (tmp_path / "x.pt").read_bytes()
    place = raw.index(extra.numpy().tobytes())
    (tmp_path / "x.pt").write_bytes(raw[: place + 8] + b"\xff" + raw[place + 9 :])
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("it was left to torch"))
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert checkpoint.state_dict.keys() == small_model().state_dict().keys()
    with pytest.raises(BrokenCheckpointError, match="damaged"):
        read_torch_file(tmp_path / "x.pt")


# --- one file, two readers --------------------------------------------------------------------------


def two_pickles() -> tuple[bytes, bytes]:
    """One that is judged, and one that must not be read in its place; both are for torch's own reader."""
    size = b"ctorch\nSize\nK\x01\x85\x85R"
    return items([size, text(b"judged")]), items([size, text(b"another")])


@pytest.mark.parametrize("name", ["x/data.pkl\0", "x/data/0\0b", "x/\0", "\0"])
def test_names_that_end_in_their_middle_are_refused(name: str, tmp_path: Path) -> None:
    """Programs in C see the part before the zero, which may be another part's name."""
    path = write_parts(tmp_path / "x.pt", [("x/data.pkl", items([b"N"])), *SIDE_PARTS, (name, b"N")])
    with pytest.raises(BrokenCheckpointError, match="not all programs read alike"):
        read_torch_file(path)


@pytest.mark.parametrize("first", [0, 1])
def test_parts_that_differ_in_case_only_are_refused(first: int, tmp_path: Path) -> None:
    """Torch's reader finds DATA.PKL where data.pkl is asked for."""
    judged, another = two_pickles()
    parts = [("x/data.pkl", judged), ("x/DATA.PKL", another)]
    path = write_parts(tmp_path / "x.pt", [*(parts if first else parts[::-1]), *SIDE_PARTS])
    with pytest.raises(BrokenCheckpointError, match="upper and lower"):
        read_torch_file(path)
    with pytest.raises(ModelFileError, match="upper and lower"):
        read_pickled_dict(path)
    assert "upper and lower" in inspect_file(path).problems[0]


def test_a_second_directory_is_refused(tmp_path: Path) -> None:
    """One stands where it should, to the other one the locator points; or one stands in front of the other."""
    judged, another = two_pickles()
    one, one_directory = directory_of([("x/data.pkl", judged), *SIDE_PARTS])
    other, other_directory = directory_of([("x/data.pkl", another), *SIDE_PARTS], len(one))
    body = one + other
    ends = [
        large_end_of(3, len(other_directory), len(body) + len(one_directory)),
        large_end_of(3, len(one_directory), len(body)),
    ]
    at = len(body) + len(one_directory) + len(other_directory)
    whole = body + one_directory + other_directory + b"".join(ends)
    path = tmp_path / "x.pt"
    for place in (at, at + len(ends[0])):
        path.write_bytes(whole + locator_of(place))
        refused_by_all(path, "its directory is not where it should be")
    path.write_bytes(one + one_directory + end_of(3, len(one_directory), len(one)) * 2)
    refused_by_all(path, "its directory is not where it should be")


def refused_by_all(path: Path, words: str) -> None:
    """By whoever looks into a file, in the same words."""
    with pytest.raises(CheckpointError, match=words):
        read_torch_file(path)
    with pytest.raises(ModelFileError, match=words):
        read_pickled_dict(path)
    with pytest.raises(ModelFileError, match=words):
        load_model(path)
    with pytest.raises(ModelFileError, match=words):
        write_edited(path, path.with_name("edited"), {"name": "x"})
    assert not path.with_name("edited").exists()
    assert words in inspect_file(path).problems[0]


@pytest.mark.parametrize("length", [1, 64, 100, 5000])
@pytest.mark.parametrize("place", ["in front", "between", "behind"])
def test_a_gap_is_refused(place: str, length: int, tmp_path: Path) -> None:
    """What stands there could be another archive, for another reader."""
    parts = [("x/data.pkl", two_pickles()[0]), *SIDE_PARTS]
    before, count = (bytes(length), 0) if place == "in front" else (b"", 1 if place == "between" else 3)
    begin, first = directory_of(parts[:count], len(before))
    gap = b"" if place == "in front" else b"g" * length
    rest, second = directory_of(parts[count:], len(before) + len(begin) + len(gap))
    body = before + begin + gap + rest
    path = tmp_path / "x.pt"
    path.write_bytes(body + first + second + end_of(3, len(first + second), len(body)))
    if place == "in front":
        with pytest.raises(CheckpointError):
            read_torch_file(path)
        path.write_bytes(b"PK\x03\x04" + body[4:] + first + second + end_of(3, len(first + second), len(body)))
    refused_by_all(path, "it has something else")


@pytest.mark.parametrize(
    ("flags", "words"), [(1, "is an encrypted zip"), (0x10, "has unknown flags"), (0x2000, "encrypted")]
)
def test_flags_that_change_the_meaning_are_refused(flags: int, words: str, tmp_path: Path) -> None:
    """Encrypted, patched: what is stored is not what another reader would make of it."""
    stored, directory = directory_of([("x/data.pkl", two_pickles()[0]), *SIDE_PARTS])
    raw = bytearray(stored + directory + end_of(3, len(directory), len(stored)))
    raw[len(stored) + 8 : len(stored) + 10] = struct.pack("<H", flags)
    (tmp_path / "x.pt").write_bytes(raw)
    refused_by_all(tmp_path / "x.pt", words)


def test_a_locator_of_nothing_is_refused(tmp_path: Path) -> None:
    """It points to what is no record."""
    stored, directory = directory_of([("x/data.pkl", items([b"N"])), *SIDE_PARTS])
    body = stored + directory + bytes(56)
    (tmp_path / "x.pt").write_bytes(body + locator_of(len(body) - 56))
    with pytest.raises(BrokenCheckpointError, match="directory is damaged"):
        read_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize("place", [10**6, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("ending", ["pkl", "version"])
def test_parts_outside_of_the_file_are_damage(place: int, ending: str, tmp_path: Path) -> None:
    """Not an error of the disk, which would be tried again and again."""
    parts = [("x/data.pkl", two_pickles()[0]), *SIDE_PARTS]
    path = write_parts(tmp_path / "x.pt", parts, **{ending: place})
    with pytest.raises(BrokenCheckpointError, match="not where it should be"):
        read_torch_file(path)
    if ending == "pkl":
        for order in (parts, parts[::-1]):
            with pytest.raises(BrokenModelError, match="not where it should be"):
                read_pickled_dict(write_parts(path, order, pkl=place))


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path: Path) -> None:
    """Also where torch's own reader had to read it: mapped weights would kill the process."""
    model = small_model()
    path = save_model(model, checkpoint_dict(model.state_dict())["spectrogram_config"], {}, ModelMetadata(), tmp_path)
    content = torch.load(path, weights_only=False)
    torch.save({**content, "unusual": torch.Size([1])}, path)
    program = """
import os, sys
from pathlib import Path
from sda_daemon.models.loading import load_model
model = load_model(Path(sys.argv[1])).model
os.truncate(sys.argv[1], 100)
print(sum(float(weight.detach().sum()) for weight in model.parameters()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=False, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(sum(float(weight.detach().sum()) for weight in model.parameters()))


# --- what is not what it seems ------------------------------------------------------------------------


class Call:
    """Pickles as a call of `os.system`."""

    def __reduce__(self) -> Any:
        return os.system, ("touch went-off",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_dangerous_name_is_told_in_any_protocol(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From protocol 4 on a name is put together while the pickle is loaded."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": {}, "x": Call()}, tmp_path / "x.pt", pickle_protocol=protocol)
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.system"):
        read_torch_file(tmp_path / "x.pt")
    assert inspect_file(tmp_path / "x.pt").names_of(NameKind.REFUSED) == ["posix.system"]
    assert not (tmp_path / "went-off").exists()


def test_names_are_shown_also_if_the_rest_is_damaged(tmp_path: Path) -> None:
    """All that were asked for until then."""
    path = write_pickle(tmp_path / "x.pt", items([text(b"posix") + text(b"system") + b"\x93", b"N\x93"]))
    found = inspect_file(path)
    assert found.names_of(NameKind.REFUSED) == ["posix.system"]
    assert found.problems[0] == (
        "it wants to call posix.system; nothing of it was run. Do not trust where this file came from"
    )
    assert "cannot be put together" in found.problems[1]


def test_a_storage_without_a_tensor_is_a_reference(tmp_path: Path) -> None:
    """Not the tuple that names it, and nothing of it is read."""
    with pytest.warns(UserWarning, match="TypedStorage"):
        storage = torch.tensor([1.0, 2.0]).storage()  # type: ignore[no-untyped-call]
    torch.save({"alone": storage, "inside": [(storage, 1)]}, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt").content
    assert isinstance(found["alone"], StorageRef)
    assert (found["inside"][0][0].key, found["alone"].count) == (found["alone"].key, 2)


_NO_FILE = "is no regular file|is a folder, not a file"


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("put", [put_socket, os.mkfifo, os.mkdir])
def test_other_things_than_files(put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket, a pipe, a folder: told as such, at once."""
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    path = Path("x")
    put(path)
    with pytest.raises(BrokenCheckpointError, match=_NO_FILE):
        read_torch_file(path)
    with pytest.raises(NotAModelError, match=_NO_FILE):
        load_model(path)
    with pytest.raises(NotAModelError, match=_NO_FILE):
        read_pickled_dict(path)
    told = "is a folder, not a file. Name a file in it" if path.is_dir() else "is no regular file"
    assert inspect_file(path).problems == [f"it {told}"]


def test_numbers_and_keys_that_cannot_be_shown(tmp_path: Path) -> None:
    """A number of ten thousand digits, a key of a hundred levels, parameters in parameters: nothing but problems."""
    deep: Any = ()
    for _ in range(900):
        deep = (deep,)
    parameter = b"ctorch._utils\n_rebuild_parameter\n"
    content = {"epoch": 10**5000, "x": 10**5000, deep: 1, "metrics_history": {"epoch_metrics": [{"epoch": 10**400}]}}
    path = write_pickle(tmp_path / "x.pt", pickle.dumps(content, 2))
    assert isinstance(inspect_file(path).problems, list)
    weights = b"\x80\x02}(" + text(b"model_state_dict") + b"}" + text(b"w") + parameter * 3000 + b"N"
    weights += b"\x85R" * 3000 + b"s"
    head = text(b"format") + text(b"sda_model") + text(b"version") + b"K\x01" + text(b"metadata") + b"}"
    write_pickle(path, weights + head + b"u.")
    assert read_model_details(path).weights == {}
    assert inspect_file(path).weights == {}


# --- unusual, but honest ------------------------------------------------------------------------------


class OneWay:
    """A file that can only be written on: a zip gets data descriptors."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def as_it_is(archive: zipfile.ZipFile, parts: list[tuple[str, bytes]]) -> None:
    for name, content in parts:
        archive.writestr(name, content)


def with_large_headers(archive: zipfile.ZipFile, parts: list[tuple[str, bytes]]) -> None:
    for name, content in parts:
        with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as part:
            part.write(content)


def backwards(archive: zipfile.ZipFile, parts: list[tuple[str, bytes]]) -> None:
    as_it_is(archive, parts[::-1])


def without_side_parts(archive: zipfile.ZipFile, parts: list[tuple[str, bytes]]) -> None:
    wanted = ("/data.pkl", "/version")
    as_it_is(archive, [part for part in parts if part[0].endswith(wanted) or "/data/" in part[0]])


def with_a_folder(archive: zipfile.ZipFile, parts: list[tuple[str, bytes]]) -> None:
    archive.writestr(parts[0][0].partition("/")[0] + "/", b"")
    as_it_is(archive, parts)


def with_a_comment(archive: zipfile.ZipFile, parts: list[tuple[str, bytes]]) -> None:
    as_it_is(archive, parts)
    archive.comment = b"copied by hand PK\x05"


WRITERS = [as_it_is, with_large_headers, backwards, without_side_parts, with_a_folder, with_a_comment]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("one_way", [False, True])
def test_archives_of_others_are_read(
    write: Callable[[zipfile.ZipFile, list[tuple[str, bytes]]], None],
    one_way: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packed again by another program, or written by an old torch: the same weights, and torch is not needed."""
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    torch.save(weights, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    target: Any = OneWay(tmp_path / "y.pt") if one_way else (tmp_path / "y.pt").open("wb")
    with zipfile.ZipFile(target, "w") as archive:
        write(archive, parts)
    (target.file if one_way else target).close()
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("it was left to torch"))
    found = read_torch_file(tmp_path / "y.pt").content
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert read_pickled_dict(tmp_path / "y.pt")[0].keys() == weights.keys()
    assert [found.what for found in inspect_file(tmp_path / "y.pt").keys] == [
        "tensor float32 [2, 3]",
        "tensor float32 [2]",
    ]


def test_a_large_end_record_is_read(tmp_path: Path) -> None:
    """As files with more than 65,535 parts or four gigabytes have."""
    stored, directory = directory_of([("x/data.pkl", items([text(b"here")])), *SIDE_PARTS])
    end = large_end_of(3, len(directory), len(stored))
    path = tmp_path / "x.pt"
    path.write_bytes(stored + directory + end + locator_of(len(stored) + len(directory)))
    assert list(read_torch_file(path).content.values()) == list(read_pickled_dict(path)[0].values()) == ["here"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_other_protocols_and_wrappers(
    protocol: int, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of plain values, in any protocol, with the names of DataParallel and torch.compile."""
    weights = small_model().state_dict()
    content = checkpoint_dict({prefix + name: tensor for name, tensor in weights.items()})
    torch.save({**content, "training_config": {"set": [1, (2, "x")]}}, tmp_path / "x.pt", pickle_protocol=protocol)
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("it was left to torch"))
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert all(torch.equal(checkpoint.state_dict[name], weights[name]) for name in weights)
    assert checkpoint.training_config == {"set": [1, [2, "x"]]}
    assert inspect_file(tmp_path / "x.pt").problems == []


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """One tensor under two names is one tensor; so is an array."""
    import numpy as np

    weight, array = torch.ones(3), np.arange(3.0)
    torch.save({"a": weight, "b": weight, "c": weight.view(3, 1), "d": array, "e": [array]}, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt").content
    assert found["a"] is found["b"]
    assert found["c"].data_ptr() == found["a"].data_ptr()
    assert found["d"] is found["e"][0]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_without_elements(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An analysis that found no component has some."""
    import numpy as np

    arrays = {"components": np.zeros((0, 64)), "variance": np.zeros(0, "f4"), "other": np.zeros((64, 0))}
    torch.save({"latent_analysis": arrays}, tmp_path / "x.pt", pickle_protocol=protocol)
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("it was left to torch"))
    found = read_torch_file(tmp_path / "x.pt").content["latent_analysis"]
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        name: (array.shape, array.dtype) for name, array in arrays.items()
    }
    assert inspect_file(tmp_path / "x.pt").analysis == {"components": [], "variance": [], "other": [[]] * 64}


def test_damage_within_is_an_error_of_the_file(tmp_path: Path) -> None:
    """However the numbers of a directory's entry are made wrong: never an error of the disk, never a crash."""
    torch.save({"w": torch.ones(3), "size": torch.Size([1])}, tmp_path / "x.pt")
    raw = (tmp_path / "x.pt").read_bytes()
    begin = raw.index(b"PK\x01\x02")
    for place in range(begin, len(raw)):
        for value in (0, 0x7F, 0xFF):
            (tmp_path / "y.pt").write_bytes(raw[:place] + struct.pack("B", value) + raw[place + 1 :])
            try:
                read_torch_file(tmp_path / "y.pt")
            except CheckpointError:
                continue


def test_more_weights_than_any_model_has(tmp_path: Path) -> None:
    """A hundred thousand names of one tensor are not looked at one by one."""
    one = torch.zeros(1)
    weights = small_model().state_dict() | {f"encoder.convs.{n}.weight": one for n in range(100, 20_000)}
    torch.save(checkpoint_dict(weights), tmp_path / "x.pt")
    with pytest.raises(MisfittingWeightsError, match="far more than any ConvVAE"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_big_endian_storage_is_swapped_once(tmp_path: Path) -> None:
    """However many tensors are parts of it."""
    shared = torch.arange(1000.0)
    torch.save({str(n): shared[n : n + 1] for n in range(1000)} | {"whole": shared}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    swapped = np.arange(1000, dtype=">f4").tobytes()
    big = [(name, b"big" if name.endswith("byteorder") else swapped if "/data/" in name else content)
           for name, content in parts]  # fmt: skip
    found = read_torch_file(write_parts(tmp_path / "big.pt", big)).content
    assert [found[str(n)].item() for n in range(1000)] == list(range(1000))
    assert found["1"].untyped_storage().data_ptr() == found["999"].untyped_storage().data_ptr()
    assert torch.equal(found["whole"], shared)


@pytest.mark.parametrize("name", ["app.ev\x1b[31mRED\nsda-daemon: all is well\x07", "app." + "A" * 900])
def test_a_name_forges_no_lines(name: str, tmp_path: Path) -> None:
    """Of a class, shown on one line, and not all of a long one."""
    module, _, attribute = name.rpartition(".")
    pickled = b"\x80\x04" + text(module.encode()) + text(attribute.encode()) + b"\x93)\x81."
    path = write_pickle(tmp_path / "x.pt", pickled)
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    told = raised.value.what
    assert told.isprintable()
    assert len(told) < 600 + len(str(path))
