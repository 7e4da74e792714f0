"""Looking into files without torch, checked against what torch reads of the same files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.models.contents import FileKind
from sda_daemon.models.inspection import inspect_file
from sda_daemon.models.torch_file import read_torch_file
from sda_daemon.torchfile.globals import Judgement, judge_name
from sda_daemon.torchfile.plain import MAX_VALUES, plain_value


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
        assert found.names_of(Judgement.FOREIGN) == ["small_dataset_audio.training.config.OverfittingPreset"]


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
    assert set(found.names_of(Judgement.REFUSED)) & {"posix.system"}
    assert any(name.endswith("eval") for name in found.names_of(Judgement.REFUSED))
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
    ("name", "judgement"),
    [
        ("posix.system", Judgement.REFUSED),
        ("__builtin__.eval", Judgement.REFUSED),
        ("numpy.load", Judgement.REFUSED),
        ("numpy._core.multiarray._reconstruct", Judgement.NUMPY),
        ("collections.OrderedDict", Judgement.SAFE),
        ("torch.hub.load", Judgement.REFUSED),
        ("pathlib.PosixPath", Judgement.FOREIGN),
        ("small_dataset_audio.training.config.OverfittingPreset", Judgement.FOREIGN),
    ],
)
def test_judged_names(name: str, judgement: Judgement) -> None:
    """What becomes of a name that a pickle would import."""
    assert judge_name(name) is judgement


def test_bare_pickles(tmp_path: Path) -> None:
    """A plain pickle that torch did not write is told as such, with its names."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.float32(3)}, protocol=2))
    found = inspect_file(tmp_path / "x.pkl")
    assert found.container == "bare pickle"
    assert [key.what for key in found.keys] == ["3"]
