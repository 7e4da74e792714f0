"""Looking into files without torch, checked against what torch reads of the same files."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.errors import CheckpointError
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.contents import FileKind
from sda_daemon.models.inspection import inspect_file
from sda_daemon.models.torch_file import read_torch_file
from sda_daemon.torchfile.globals import NameKind, kind_of_name
from sda_daemon.torchfile.plain import MAX_VALUES, plain_value
from tests.torchfile.hostile import text, write_pickle


def check_against_torch(path: Path) -> None:
    """Assert that weights, numbers and analysis are what torch's reader says."""
    found, content = inspect_file(path), read_torch_file(path).content
    assert found.problems == []
    weights: dict[str, torch.Tensor] = content["model_state_dict"]
    assert {name: (o.dtype, o.shape, o.size_bytes) for name, o in found.weights.items()} == {
        name: (str(t.dtype).removeprefix("torch."), tuple(t.shape), t.numel() * t.element_size())
        for name, t in weights.items()
    }
    assert [key.key for key in found.keys] == list(content)
    for name in ("epoch", "train_loss", "val_loss"):
        assert found.numbers[name] == content[name]
    analysis: dict[str, Any] | None = content["latent_analysis"]
    assert (found.analysis is None) == (analysis is None)
    for key, value in (analysis or {}).items():
        assert found.analysis is not None
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(np.array(found.analysis[key], dtype=value.dtype), value)
        else:
            assert found.analysis[key] == value


def test_small_checkpoints(small_checkpoints: Callable[..., Path]) -> None:
    """With and without analysis."""
    check_against_torch(small_checkpoints(0, with_analysis=True))
    check_against_torch(small_checkpoints(1))


def test_real_checkpoints(sample_runs: Path) -> None:
    """The training application's own files, loss curves and foreign enum included."""
    paths = sorted(sample_runs.glob("*/checkpoints/*.pt"))
    for path in paths:
        check_against_torch(path)
        found = inspect_file(path)
        assert found.kind is FileKind.CHECKPOINT
        assert found.training_config["preset"] == "conservative"
        history = read_torch_file(path).content["metrics_history"]["epoch_metrics"]
        assert found.curves["val_loss"] == [(record["epoch"], record["val_loss"]) for record in history]
        assert found.names_of(NameKind.FOREIGN) == ["small_dataset_audio.training.config.OverfittingPreset"]


class Bomb:
    """Calls what it is told to when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("old_format", [False, True])
def test_nothing_runs(tmp_path: Path, old_format: bool) -> None:
    """The name is shown as refused, the rest of the file all the same, and nothing happens."""
    target = tmp_path / "went-off"
    content = {
        "epoch": 3,
        "model_state_dict": {"encoder.x": torch.zeros(3)},
        "bomb": Bomb(os.system, f"touch {target}"),
        "more": Bomb(eval, "1/0"),
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not old_format)
    found = inspect_file(tmp_path / "x.pt")
    assert not target.exists()
    assert set(found.names_of(NameKind.REFUSED)) & {"posix.system"}
    assert any(name.endswith("eval") for name in found.names_of(NameKind.REFUSED))
    assert found.numbers["epoch"] == 3
    assert found.weights["encoder.x"].shape == (3,)


def test_kinds(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> None:
    """A bare state dict, another torch file, TorchScript, an empty file, a truncated one, a text."""
    state = read_torch_file(small_checkpoints(0)).content["model_state_dict"]
    torch.save(state, tmp_path / "bare.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "script.pt"))
    (tmp_path / "empty.pt").touch()
    data = small_checkpoints(0).read_bytes()
    (tmp_path / "half.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pt").write_text("hello")
    kinds = {path.stem: inspect_file(path).kind for path in tmp_path.glob("*.pt")}
    assert kinds == {
        "bare": FileKind.STATE_DICT,
        "list": FileKind.TORCH,
        "script": FileKind.TORCHSCRIPT,
        "empty": FileKind.UNKNOWN,
        "half": FileKind.UNKNOWN,
        "text": FileKind.UNKNOWN,
    }
    assert "truncated" in inspect_file(tmp_path / "half.pt").problems[0]
    assert inspect_file(tmp_path / "empty.pt").problems == ["it is empty. Copy it again from where it was written"]


def billion(depth: int = 30) -> Any:
    """Return a list that means 10 to the power of `depth` values."""
    value: Any = ["x"]
    for _ in range(depth):
        value = [value] * 10
    return value


def test_a_billion_values_in_a_few_bytes(tmp_path: Path) -> None:
    """Lists that hold each other many times are cut off, here and in the metadata of a model."""
    bomb = billion()
    torch.save({"model_state_dict": {}, "training_config": {"a": bomb}, "x": bomb}, tmp_path / "x.pt")
    assert inspect_file(tmp_path / "x.pt").kind is FileKind.CHECKPOINT
    dropped: list[str] = []
    plain_value(bomb, lambda _where, what: dropped.append(what))
    assert "too many values" in dropped
    assert len(dropped) < MAX_VALUES


def test_an_endless_list(tmp_path: Path) -> None:
    """A list that holds itself is looked at once."""
    endless: list[Any] = []
    endless.append(endless)
    torch.save({"model_state_dict": {}, "x": endless, "metrics_history": {"epoch_metrics": endless}}, tmp_path / "x.pt")
    assert inspect_file(tmp_path / "x.pt").curves == {}


@pytest.mark.parametrize("seed", range(20))
def test_damaged_files_never_raise(tmp_path: Path, seed: int, small_checkpoints: Callable[..., Path]) -> None:
    """Bytes flipped at random in the pickle: a description or a problem, within a moment, never an exception."""
    data = bytearray(small_checkpoints(0, with_analysis=True).read_bytes())
    random = np.random.default_rng(seed)
    for position in random.integers(100, 20_000, size=8):
        data[position] = int(random.integers(256))
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    inspect_file(path)


def test_torch_is_not_needed(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> None:
    """Looking into a file works where there is neither torch nor numpy."""
    program = """
import sys, pathlib
sys.modules["torch"] = sys.modules["numpy"] = None
from sda_daemon.models.inspection import inspect_file
found = inspect_file(pathlib.Path(sys.argv[1]))
assert found.weights and found.analysis["pca_mean"] and not found.problems
"""
    subprocess.run([sys.executable, "-c", program, small_checkpoints(0, with_analysis=True)], check=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("posix.system", NameKind.REFUSED),
        ("__builtin__.eval", NameKind.REFUSED),
        ("numpy.load", NameKind.REFUSED),
        ("numpy._core.multiarray._reconstruct", NameKind.NUMPY),
        ("collections.OrderedDict", NameKind.SAFE),
        ("torch.hub.load", NameKind.REFUSED),
        ("pathlib.PosixPath", NameKind.FOREIGN),
        ("small_dataset_audio.training.config.OverfittingPreset", NameKind.FOREIGN),
        # Python's own tests act; a script or a package of somebody's may be called the same.
        ("test.support.os.system", NameKind.REFUSED),
        ("test.support.script_helper.assert_python_ok", NameKind.REFUSED),
        ("test.libregrtest.main.main", NameKind.REFUSED),
        ("test.Config", NameKind.FOREIGN),
        ("test.models.Config", NameKind.FOREIGN),
        ("tests.support.Config", NameKind.FOREIGN),
        # What is in some versions of Python only, or in some installations.
        ("lib2to3.pgen2.driver.main", NameKind.REFUSED),
        ("idlelib.pyshell.main", NameKind.REFUSED),
        ("turtledemo.__main__.main", NameKind.REFUSED),
        ("ensurepip.bootstrap", NameKind.REFUSED),
        ("venv.create", NameKind.REFUSED),
        ("compression.zstd.open", NameKind.REFUSED),
        ("chunk.Chunk", NameKind.REFUSED),
        ("_testcapi.run_in_subinterp", NameKind.REFUSED),
    ],
)
def test_judged_names(name: str, kind: NameKind) -> None:
    """What becomes of a name that a pickle would import."""
    assert kind_of_name(name) is kind


def test_bare_pickles(tmp_path: Path) -> None:
    """A plain pickle that torch did not write is told as such, with its names."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.float32(3)}, protocol=2))
    found = inspect_file(tmp_path / "x.pkl")
    assert found.container == "bare pickle"
    assert [key.what for key in found.keys] == ["3"]


# --- near a limit: a conversion and inspect judge alike ---------------------------------------------


def attributes(count: int) -> bytes:
    """One attribute of a class, made anew each time."""
    make = b"cbuiltins\ngetattr\nq\x010capp\nThing\nq\x000"
    return make + b"](" + b"h\x01h\x00X\x01\x00\x00\x00a\x86R" * count + b"e"


def tensors(count: int) -> bytes:
    """One tensor, made anew each time."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQq\x000"
    make = b"ctorch._utils\n_rebuild_tensor_v2\nq\x010"
    return storage + make + b"](" + b"h\x01(h\x00K\x00))\x89NtR" * count + b"e"


def holders(count: int) -> bytes:
    return b"](" + b"]" * count + b"e"


def pairs(count: int) -> bytes:
    return b"](" + b"K\x01K\x02\x86" * count + b"e"


def sets(count: int) -> bytes:
    """One set of many items, which is looked at again and again."""
    one = b"cbuiltins\nset\n](" + b"K\x01" * 1000 + b"e\x85Rq\x000"
    return one + b"](" + b"h\x00" * count + b"e"


def keys(count: int) -> bytes:
    return b"}(" + b"".join(b"J" + struct.pack("<i", 70_000 + n) + b"N" for n in range(count)) + b"u"


EDGES = {
    "attributes": (attributes, 10_000), "tensors": (tensors, 40_000), "holders": (holders, 300_000),
    "pairs": (pairs, 200_000), "sets": (sets, 30_000), "keys": (keys, 600_000),
}  # fmt: skip


def judged(path: Path, part: str, value: bytes) -> tuple[list[str], list[str]]:
    """Return whether a conversion and inspect call a file with this under a key too costly, and in which words."""
    weights = text(b"model_state_dict") + b"}" + text(b"encoder.convs.0.bias") + b"Ns"
    write_pickle(path, b"\x80\x02}(" + weights + text(part.encode()) + b"}" + text(b"a") + value + b"su.")
    with pytest.raises(CheckpointError) as refused:  # at the latest because its weights are none
        read_checkpoint(path)
    told = [str(refused.value).replace(str(path), "it"), *inspect_file(path).problems]
    costly = [words for words in told if "too costly" in words]
    return costly[: told[0] in costly], costly[told[0] in costly :]


@pytest.mark.parametrize("part", ["training_config", "metrics_history"])
@pytest.mark.parametrize("edge", EDGES)
def test_at_the_edge_of_what_a_file_may_cost(edge: str, part: str, tmp_path: Path) -> None:
    """Where a conversion begins to refuse, inspect does, too, in the same words, and nowhere else."""
    build, refused = EDGES[edge]
    fine, has_limit = 0, False
    while refused - fine > max(1, refused // 100):
        middle = (fine + refused) // 2
        converting, inspecting = judged(tmp_path / "x.pt", part, build(middle))
        assert inspecting == converting
        fine, refused = (fine, middle) if converting else (middle, refused)
        has_limit = has_limit or bool(converting)
    assert has_limit or edge in ("sets", "tensors", "holders", "pairs")  # none in some parts, which are not made
