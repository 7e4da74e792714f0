"""Reading checkpoints: the real ones load, every dangerous, broken or foreign one is refused with its reason."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, made_up_analysis, small_model, write_checkpoint
from sda_daemon.errors import (
    BrokenCheckpointError,
    CheckpointError,
    ForeignCheckpointError,
    MisfittingWeightsError,
    NewerCheckpointError,
    NonFiniteWeightsError,
    UnsafeCheckpointError,
)
from sda_daemon.models.checkpoint import Checkpoint, read_checkpoint
from tests.bombs import add_zeros


def content(**changes: Any) -> dict[str, Any]:
    """A sound checkpoint's dict with some keys changed."""
    return {**checkpoint_dict(small_model().state_dict(), analysis=made_up_analysis()), **changes}


def saved(path: Path, value: Any, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


@pytest.mark.parametrize(("run", "epoch", "latent_dim", "sliders"), [("notes64", 5, 64, 19), ("notes32", 2, 32, 0)])
def test_the_real_samples_are_read(sample_runs: Path, run: str, epoch: int, latent_dim: int, sliders: int) -> None:
    """Sizes, losses, configs with the foreign enum as its value, and the analysis."""
    checkpoint = read_checkpoint(sample_runs / run / "checkpoints" / f"checkpoint_epoch{epoch:04}.pt")
    assert (checkpoint.epoch, checkpoint.layout.latent_dim) == (epoch, latent_dim)
    assert (checkpoint.layout.rows, checkpoint.layout.columns) == (8, 6)
    assert checkpoint.training_config["preset"] == "conservative"
    assert checkpoint.spectrogram_config.n_mels == 128
    assert checkpoint.dropped == ()
    assert (checkpoint.analysis.n_active_components if checkpoint.analysis else 0) == sliders


def test_a_checkpoint_with_everything_is_read(tmp_path: Path) -> None:
    """The demo's checkpoint has the application's enum in it, and all of its facts come out."""
    path = write_checkpoint(tmp_path / "x.pt", content(epoch=9, train_loss=0.25, val_loss=float("inf")))
    checkpoint = read_checkpoint(path)
    assert (checkpoint.epoch, checkpoint.train_loss, checkpoint.val_loss) == (9, 0.25, float("inf"))
    assert checkpoint.training_config["preset"] == "balanced"
    assert checkpoint.decoder_activation == "softplus"
    assert checkpoint.analysis is not None
    assert not checkpoint.is_bare


# --- nothing executes (b17) -------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class SetsState:
    """Pickles as an object whose state would be set by a foreign class."""

    def __reduce__(self) -> Any:
        return SetsState, (), {"state": 1}

    def __setstate__(self, state: Any) -> None:
        Path("went-off").touch()


PAYLOADS: dict[str, Callable[[], Any]] = {
    "posix.system": lambda: Calls(os.system, "touch went-off"),
    "builtins.eval": lambda: Calls(builtins.eval, "open('went-off', 'w')"),
    "builtins.exec": lambda: Calls(builtins.exec, "open('went-off', 'w')"),
    "builtins.getattr": lambda: Calls(builtins.getattr, "text", "lower"),
    "subprocess.Popen": lambda: Calls(subprocess.Popen, ["touch", "went-off"]),
    "torch.hub.load": lambda: Calls(torch.hub.load, "someone/something", "model"),
    "torch.serialization.load": lambda: Calls(torch.load, "other.pt"),
    "importlib.import_module": lambda: Calls(__import__("importlib").import_module, "antigravity"),
    "runpy.run_path": lambda: Calls(__import__("runpy").run_path, "x.py"),
}


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("place", ["alone", "dict", "state dict", "training config"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_b17_no_payload_runs(
    name: str, place: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the call stands and in whichever format: refused with its name, and nothing happened."""
    monkeypatch.chdir(tmp_path)
    bomb = PAYLOADS[name]()
    whole = content()
    value = {
        "alone": bomb,
        "dict": {**whole, "extra": bomb},
        "state dict": {**whole, "model_state_dict": {**whole["model_state_dict"], "x": bomb}},
        "training config": {**whole, "training_config": {"device": bomb}},
    }[place]
    path = saved(tmp_path / "x.pt", value, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpointError, match=name.replace(".", r"\.")):
        read_checkpoint(path)
    assert not (tmp_path / "went-off").exists()


def test_b17_foreign_state_is_only_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`__setstate__` of a class that could be imported is not called: the class is not even looked at."""
    monkeypatch.chdir(tmp_path)
    training = {**content()["training_config"], "odd": SetsState()}
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", content(training_config=training)))
    assert not (tmp_path / "went-off").exists()
    assert "odd" not in checkpoint.training_config
    assert checkpoint.dropped == (("training_config.odd", f"{__name__}.SetsState"),)


def test_b17_the_old_tar_format_is_refused(tmp_path: Path) -> None:
    """Torch's oldest format cannot be read safely; the message says what to do."""
    member = tmp_path / "pickle"
    member.write_bytes(pickle.dumps(Calls(os.system, "touch went-off")))
    path = tmp_path / "x.pt"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(member, "pickle")
    with pytest.raises(ForeignCheckpointError, match="tar archive"):
        read_checkpoint(path)


# --- bombs (b18) ------------------------------------------------------------------------------------


def measured(path: Path) -> tuple[str, int]:
    """Read a checkpoint in a fresh process; return the error's kind and by how many bytes its memory peak grew."""
    program = """
import resource, sys
from pathlib import Path
from sda_daemon.errors import CheckpointError
from sda_daemon.models.checkpoint import read_checkpoint
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
try:
    read_checkpoint(Path(sys.argv[1]))
except CheckpointError as error:
    print(error.kind, peak() - before, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120, check=True
    )
    kind, grown = done.stdout.split()[:2]
    return kind, int(grown)


def test_b18_compressed_parts_are_refused(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte: never unpacked."""
    path = tmp_path / "x.pt"
    add_zeros(path, "x/data.pkl", 105)
    kind, grown = measured(path)
    assert kind == "not_a_checkpoint"
    assert grown < 100 * 2**20


def test_b18_a_million_parts_are_refused(tmp_path: Path) -> None:
    """The number of parts is looked at before any list of them is made."""
    path = tmp_path / "x.pt"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"x"
    central = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    count = 1_000_000
    with path.open("wb") as file:
        file.write(local)
        begin = file.tell()
        file.write(central * count)
        size, end = file.tell() - begin, file.tell()
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin))
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    kind, grown = measured(path)
    assert kind == "oversized"
    assert grown < 100 * 2**20


def test_b18_deep_nesting_is_survived(tmp_path: Path) -> None:
    """A list in a list, 100,000 times, as a whole checkpoint and inside a config."""
    deep: list[Any] = []
    nested = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", nested)
        archive.writestr("x/version", "3\n")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    for _ in range(200):
        deep = [deep]
    checkpoint = read_checkpoint(saved(tmp_path / "y.pt", content(training_config={"deep": deep, "sound": 1})))
    assert checkpoint.training_config["sound"] == 1
    assert [what for _, what in checkpoint.dropped] == ["nested too deeply"]


def test_b18_lists_that_share_their_items_do_not_explode(tmp_path: Path) -> None:
    """30 levels of 10 references each are 300 items in the file and 10^30 when written out."""
    bomb: list[Any] = ["x"]
    for _ in range(30):
        bomb = [bomb] * 10
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", content(training_config={"bomb": bomb})))
    assert [what for _, what in checkpoint.dropped] == ["too many values"]
    analysis = {**content()["latent_analysis"], "pca_mean": bomb}
    sick = read_checkpoint(saved(tmp_path / "y.pt", content(latent_analysis=analysis)))
    assert sick.analysis is None


def test_b18_a_huge_tensor_in_a_small_file_is_refused(tmp_path: Path) -> None:
    """A stride of 0 makes 2 GB of one number: refused before anything is allocated."""
    weights = {**small_model().state_dict(), "decoder.fc.weight": torch.zeros(1).expand(2**29)}
    kind, grown = measured(saved(tmp_path / "x.pt", content(model_state_dict=weights)))
    assert kind == "oversized"
    assert grown < 300 * 2**20


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_b18_a_storage_that_is_not_there_is_refused(legacy: bool, tmp_path: Path) -> None:
    """The pickle claims 2^29 numbers for a storage of ten: no such memory is used."""
    path = saved(tmp_path / "x.pt", {"t": torch.zeros(12345)}, _use_new_zipfile_serialization=not legacy)
    raw = path.read_bytes()
    number, huge = b"M" + struct.pack("<H", 12345), b"J" + struct.pack("<i", 2**29)
    assert number in raw
    if legacy:
        path.write_bytes(raw.replace(number, huge))
    else:
        with zipfile.ZipFile(path) as archive:
            parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data.replace(number, huge) if name.endswith("data.pkl") else data)
    kind, grown = measured(path)
    assert kind == "broken"
    assert grown < 300 * 2**20


def test_b18_a_memo_bomb_is_refused(tmp_path: Path) -> None:
    """A pickle of a few bytes that would make an unpickler's memo gigabytes large."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(BrokenCheckpointError, match="memo"):
        read_checkpoint(path)


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of two pickles a reader takes must not be a question."""
    path = saved(tmp_path / "x.pt", content())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="two parts"):
        read_checkpoint(path)


# --- sick models (b19) ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_b19_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    """The weight and the number of bad values are named."""
    weights = dict(small_model().state_dict())
    weights["encoder.convs.0.bias"] = weights["encoder.convs.0.bias"].clone()
    weights["encoder.convs.0.bias"][:3] = value
    with pytest.raises(NonFiniteWeightsError, match=r"encoder\.convs\.0\.bias .* has 3 values"):
        read_checkpoint(saved(tmp_path / "x.pt", content(model_state_dict=weights)))


SICK_WEIGHTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda w: {k: v for k, v in w.items() if k != "encoder.convs.4.weight"}, r"lacks encoder\.convs\.4"),
    "no decoder": (lambda w: {k: v for k, v in w.items() if "fc" not in k}, r"lacks decoder\.fc\.weight"),
    "surplus": (lambda w: {**w, "encoder.attention": torch.zeros(3)}, "no ConvVAE has: encoder.attention"),
    "shape": (lambda w: {**w, "encoder.convs.0.weight": torch.zeros(32, 1, 5, 5)}, r"\[32, 1, 5, 5\], expected"),
    "rows": (lambda w: {**w, "decoder.fc.weight": torch.zeros(1000, 8)}, "1000 features"),
    "type": (lambda w: {**w, "encoder.convs.0.weight": torch.zeros(32, 1, 3, 3, dtype=torch.int8)}, "int8"),
    "complex": (lambda w: {**w, "encoder.convs.0.bias": torch.zeros(32, dtype=torch.complex64)}, "complex64"),
    "sparse": (lambda w: {**w, "encoder.convs.0.bias": torch.zeros(32).to_sparse()}, "dense"),
    "no tensor": (lambda w: {**w, "encoder.convs.0.bias": [0.0] * 32}, "not a tensor"),
    "twice": (lambda w: {**w, "module.encoder.convs.0.bias": torch.zeros(32)}, "two weights"),
    "number as name": (lambda w: {**w, 7: torch.zeros(32)}, "name of a weight"),
    "empty": (lambda _: {}, "empty"),
    "a list": (lambda _: [1, 2], "list"),
}


@pytest.mark.parametrize("case", SICK_WEIGHTS)
def test_b19_misfitting_weights(case: str, tmp_path: Path) -> None:
    """Each misfit has its own reason, which names the weight."""
    change, reason = SICK_WEIGHTS[case]
    path = saved(tmp_path / "x.pt", content(model_state_dict=change(dict(small_model().state_dict()))))
    with pytest.raises(MisfittingWeightsError, match=reason):
        read_checkpoint(path)


def test_b19_a_newer_version(tmp_path: Path) -> None:
    """The message is the training application's own."""
    path = saved(tmp_path / "x.pt", content(version=2))
    with pytest.raises(NewerCheckpointError, match="checkpoint version 2 is newer than supported version 1"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "one"}, "version number, but 'one'"),
        ({"epoch": "five"}, "no usable epoch"),
        ({"epoch": float("nan")}, "no usable epoch"),
        ({"train_loss": [1]}, "no usable train_loss"),
        ({"training_config": [1]}, "as training_config"),
        ({"spectrogram_config": {"n_mels": -4}}, "n_mels"),
        ({"spectrogram_config": {"n_fft": 2**24}}, "n_fft"),
        ({"spectrogram_config": {"hop_length": 0}}, "hop_length"),
    ],
)
def test_b19_broken_facts(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """A field of a wrong type is named with its value."""
    with pytest.raises(BrokenCheckpointError, match=reason):
        read_checkpoint(saved(tmp_path / "x.pt", content(**changes)))


@pytest.mark.parametrize("value", [{"weights": torch.zeros(3)}, {}, [1, 2], torch.zeros(3), "text", 7])
def test_b19_other_torch_files_are_foreign(value: Any, tmp_path: Path) -> None:
    """A sound torch file of another kind is called that."""
    with pytest.raises(ForeignCheckpointError):
        read_checkpoint(saved(tmp_path / "x.pt", value))


def test_b19_torchscript_is_foreign(tmp_path: Path) -> None:
    """A TorchScript program is recognised without being loaded."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/constants.pkl", b"\x80\x02).")
    with pytest.raises(ForeignCheckpointError, match="TorchScript"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("raw", [b"", b"no checkpoint at all", b"PK\x03\x04 and nothing", b"\x80\x02.", bytes(5000)])
def test_b19_broken_files(raw: bytes, tmp_path: Path) -> None:
    """Whatever it holds, a broken file is a clear error."""
    path = tmp_path / "x.pt"
    path.write_bytes(raw)
    with pytest.raises(BrokenCheckpointError, match=r"x\.pt"):
        read_checkpoint(path)


def test_b19_every_truncation_is_broken(tmp_path: Path) -> None:
    """Cut anywhere, a checkpoint is never taken for a whole one."""
    raw = saved(tmp_path / "x.pt", content()).read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.99, 0.99999):
        (tmp_path / "cut.pt").write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(BrokenCheckpointError):
            read_checkpoint(tmp_path / "cut.pt")


def test_a_folder_or_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """No file, no checkpoint."""
    with pytest.raises(BrokenCheckpointError, match=r"is a folder, not a file\. Name a file in it"):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "x.pt")


# --- what also converts -----------------------------------------------------------------------------


def same_weights(checkpoint: Checkpoint) -> bool:
    expected = small_model().state_dict()
    found = checkpoint.state_dict
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_legacy_files_load(tmp_path: Path) -> None:
    """Files from before torch's zip format, with the usual ending of theirs."""
    assert same_weights(read_checkpoint(saved(tmp_path / "x.pth", content(), _use_new_zipfile_serialization=False)))


def test_a_bare_state_dict_loads(tmp_path: Path) -> None:
    """Weights without anything around them, in the default spectrogram config."""
    model = small_model(n_mels=128, columns=6)
    checkpoint = read_checkpoint(saved(tmp_path / "x.ckpt", model.state_dict()))
    assert checkpoint.is_bare
    assert checkpoint.spectrogram_config.n_mels == 128
    assert (checkpoint.epoch, checkpoint.analysis) == (0, None)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_leave_no_trace(prefix: str, tmp_path: Path) -> None:
    """DataParallel and torch.compile put words before every name."""
    weights = {prefix + name: tensor for name, tensor in small_model().state_dict().items()}
    assert same_weights(read_checkpoint(saved(tmp_path / "x.pt", content(model_state_dict=weights))))


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_checkpoints_of_other_devices_load(device: str, tmp_path: Path) -> None:
    """Storages tagged with a device that this machine does not have come to the CPU."""
    path = saved(tmp_path / "x.pt", content())
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    tag, other = b"X\x03\x00\x00\x00cpu", b"X" + struct.pack("<I", len(device)) + device.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data.replace(tag, other))
    assert other in path.read_bytes()
    checkpoint = read_checkpoint(path)
    assert same_weights(checkpoint)
    assert {tensor.device.type for tensor in checkpoint.state_dict.values()} == {"cpu"}


def test_a_broken_analysis_costs_the_sliders_only(tmp_path: Path) -> None:
    """The model is still worth having; what was left out is told."""
    whole = content()["latent_analysis"]
    for sick in ([1], {**whole, "version": 9}, {**whole, "step_size": None}, {**whole, "n_active_components": 2}):
        checkpoint = read_checkpoint(saved(tmp_path / "x.pt", content(latent_analysis=sick)))
        assert checkpoint.analysis is None
        assert checkpoint.dropped[0][0] == "latent_analysis"
