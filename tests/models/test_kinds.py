"""What is something else is named for what it is, in the same words by all who look into it, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import pickle
import struct
import tarfile
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, made_up_analysis, small_model
from sda_daemon.errors import CheckpointError, FinishedModelError, ModelFileError
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.contents import FileKind
from sda_daemon.models.header import read_model_header
from sda_daemon.models.inspection import inspect_file
from sda_daemon.models.loading import load_model
from sda_daemon.models.persistence import ModelMetadata, save_model

NOT_FOR_US = "Only checkpoints of a ConvVAE that torch.save wrote can be used"
ONLY_CONVVAE = "Only checkpoints of a ConvVAE can be converted"
SAVE_AGAIN = "Load it where it was made and save its state dict with torch.save"


def zipped(*parts: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return buffer.getvalue()


def torch_bytes(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def a_wave() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams((1, 2, 48_000, 0, "NONE", ""))
        sound.writeframes(bytes(100))
    return buffer.getvalue()


def a_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


def compressed(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        return zipped(*((entry.filename, old.read(entry)) for entry in old.infolist()), method=zipfile.ZIP_DEFLATED)


def encrypted(content: bytes) -> bytes:
    """Set the flag of encryption in front of each part and in the directory."""
    raw = bytearray(content)
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(magic)
        while at >= 0:
            raw[at + place] |= 1
            at = raw.find(magic, at + 1)
    return bytes(raw)


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


WHOLE = torch_bytes({"model_state_dict": {}})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
SAFETENSORS_HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FILES: dict[str, tuple[bytes, str, str]] = {
    "git-lfs": (LFS, "is a Git LFS pointer, not the file itself", "Fetch the file itself with: git lfs pull"),
    "git-lfs behind a mark": (b"\xef\xbb\xbf" + LFS, "is a Git LFS pointer, not the file itself", ""),
    "git-lfs of Windows": (LFS.replace(b"\n", b"\r\n"), "is a Git LFS pointer, not the file itself", ""),
    "git-lfs in UTF-16": (LFS.decode().encode("utf-16"), "is a Git LFS pointer, not the file itself", ""),
    "html in UTF-16": ("\n<html><body>Bitte anmelden</body></html>".encode("utf-16"),
                       "is a web page (HTML), not the file itself", ""),
    "html in the other UTF-16": (b"\xfe\xff" + "<!DOCTYPE html>".encode("utf-16-be"),
                                 "is a web page (HTML), not the file itself", ""),
    "html behind a comment": (b"\n <!-- saved -->\n<html>", "is a web page (HTML), not the file itself", ""),
    "html behind a long comment": (b"<!-- " + b"x" * 3000 + b" --><html>",
                                   "is a web page (HTML), not the file itself", ""),
    "html behind a prolog": (b'<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE html>\n',
                             "is a web page (HTML), not the file itself", ""),
    "yaml": (b"---\nepoch: 1\n", "is a YAML text", NOT_FOR_US),
    "json in UTF-16": ('{"epoch": 1}'.encode("utf-16"), "is a JSON text", NOT_FOR_US),
    "safetensors, written nicely": (struct.pack("<Q", 60) + b' {\n "w": {"dtype": "F32"}}', "is a safetensors file",
                                    SAVE_AGAIN),
    "half of safetensors": (struct.pack("<Q", 90_000) + SAFETENSORS_HEADER, "is a safetensors file", SAVE_AGAIN),
    "core ml": (b"\x08\x05\x12\x1f\x0a\x0e\x0a\x05image\x1a\x05\x22\x03\x08\xe0\x01R\x0d\x0a\x04prob\x1a\x05*",
                "is a Core ML model", NOT_FOR_US),
    "core ml, first version": (b"\x08\x01\x12\x0b\x0a\x09\x0a\x05input\x1a\x00\xfa\x12\x00",
                               "is a Core ML model", NOT_FOR_US),
    "saved model": (b"\x08\x01\x12\x9c\x83\x05\x0a\x8d\x07\x12\xe4\x06\x0a\x1b\x0a\x03Add\x12\x06\x0a\x01x",
                    "is a TensorFlow model (SavedModel)", NOT_FOR_US),
    "frozen graph": (b"\x0a\x1b\x0a\x05input\x12\x0bPlaceholder*\x05\x0a\x01a\x12\x00",
                     "is a TensorFlow graph (GraphDef)", NOT_FOR_US),
    "onnx of a newer version": (b"\x08\x0a:\x80\x20\x0a\x10\x0a\x01x", "is an ONNX model", SAVE_AGAIN),
    "html": (b"<!DOCTYPE html>\n<html><title>Sign in</title></html>", "is a web page (HTML), not the file itself",
             "A download went wrong: open the page in a browser, perhaps it asks you to sign in"),
    "html behind a mark": (b"\xef\xbb\xbf \n <HTML lang='en'>", "is a web page (HTML), not the file itself", ""),
    "xhtml": (b'<?xml version="1.0"?><!DOCTYPE html><html xmlns="x">', "is a web page (HTML), not the file itself", ""),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
            "is an XML text, such as a server's error message", "Download the file again"),
    "json": (json.dumps({"epoch": 1}).encode(), "is a JSON text", NOT_FOR_US),
    "text": ("Grüße, hier ist nichts".encode(), "is a text file", NOT_FOR_US),
    "safetensors": (struct.pack("<Q", len(SAFETENSORS_HEADER)) + SAFETENSORS_HEADER + bytes(4), "is a safetensors file",
                    SAVE_AGAIN),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x00", "is an ONNX model", SAVE_AGAIN),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file (Keras writes such)", NOT_FOR_US),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(100), "is a GGUF file (a language model)", NOT_FOR_US),
    "gzip": (gzip.compress(WHOLE), "is compressed with gzip, perhaps a tar archive",
             "Unpack it (gunzip, or tar -xzf) and use the file inside"),
    "bzip2": (bz2.compress(WHOLE), "is compressed with bzip2, perhaps a tar archive",
              "Unpack it (bunzip2, or tar -xjf) and use the file inside"),
    "xz": (lzma.compress(WHOLE), "is compressed with xz, perhaps a tar archive",
           "Unpack it (unxz, or tar -xJf) and use the file inside"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(50), "is compressed with Zstandard, perhaps a tar archive",
             "Unpack it (unzstd, or tar --zstd -xf) and use the file inside"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(100), "is a 7z archive", "Unpack it and use the file inside"),
    "rar": (b"Rar!\x1a\x07\x01\0" + bytes(100), "is a RAR archive", "Unpack it and use the file inside"),
    "tar": (a_tar(), "is a tar archive: torch's oldest format, which cannot be read safely, or any other", ""),
    "npy": (b"\x93NUMPY\x01\0" + bytes(100), "is a NumPy array (.npy)", NOT_FOR_US),
    "npz": (npz(), "is a NumPy archive (.npz)", NOT_FOR_US),
    "sound": (a_wave(), "is a WAV sound", NOT_FOR_US),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG picture", NOT_FOR_US),
    "sqlite": (b"SQLite format 3\0" + bytes(100), "is an SQLite database", NOT_FOR_US),
    "program": (b"\x7fELF\x02\x01" + bytes(100), "is a program (ELF)", NOT_FOR_US),
    "script": (b"#!/bin/sh\nrm x\n", "is a script", NOT_FOR_US),
    "torchscript": (zipped(("m/data.pkl", b"\x80\x02}."), ("m/constants.pkl", b"\x80\x02)."), ("m/code/a.py", b"pass")),
                    "is a TorchScript program, not a checkpoint", SAVE_AGAIN),
    "torch.package": (zipped(("p/.data/extern_modules", b"torch"), ("p/.data/version", b"6"), ("p/m/model.pkl", b"x")),
                      "is a package of torch.package", SAVE_AGAIN),
    "pt2": (zipped(("a/archive_format", b"pt2"), ("a/models/model.json", b"{}"), ("a/data/weights/w", b"x")),
            "is a program of torch.export (.pt2)", SAVE_AGAIN),
    "zip of checkpoints": (zipped(("runs/a.pt", WHOLE), ("runs/b.pt", WHOLE)),
                           "is a zip archive with checkpoints or models in it", "Unpack it and use the file inside"),
    "zip": (zipped(("holiday/1.jpg", b"x")), "is a zip archive, but not one of torch ('holiday/1.jpg')", NOT_FOR_US),
    "empty zip": (zipped(), "is an empty zip archive", NOT_FOR_US),
    "keras": (zipped(("config.json", b"{}"), ("model.weights.h5", b"x")), "is a Keras model", NOT_FOR_US),
    "office": (zipped(("[Content_Types].xml", b"x"), method=zipfile.ZIP_DEFLATED), "is an Office document", NOT_FOR_US),
    "compressed zip": (compressed(WHOLE), "is a compressed zip ('data.pkl' is); torch never writes such",
                       "Unpack it and pack it again without compression (zip -0 -r), or take the original"),
    "encrypted zip": (encrypted(WHOLE), "is an encrypted zip ('data.pkl' needs a password)",
                      "Unpack it, and pack it again without a password"),
    "plain pickle": (pickle.dumps({"epoch": 1}), "is a plain pickle, which torch.save did not write",
                     "Load it where it was made and save it with torch.save"),
    "plain pickle of text": (pickle.dumps({"epoch": 1}, 0), "is a plain pickle, which torch.save did not write", ""),
    "plain pickle of tensors": (pickle.dumps({"w": torch.zeros(3)}),
                                "is a plain pickle with tensors in it, which torch.save did not write", ""),
    "nothing": (b"", "is empty", "Copy it again from where it was written"),
    "zeros": (bytes(5000), "begins with zeros, as space that was set aside does", ""),
    "noise": (b"\xfe\xdc" * 100, r"is no torch file: it begins with b'\xfe\xdc\xfe\xdc\xfe\xdc\xfe\xdc'", NOT_FOR_US),
    "half": (WHOLE[: len(WHOLE) // 2], "is truncated or damaged: it has no directory at its end",
             "Copy it again from where it was written"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_other_files_are_named_by_all_in_the_same_words(case: str, tmp_path: Path) -> None:
    """A conversion, inspect, a header and load_model; nobody speaks of opcodes, of training on, or of weights_only."""
    content, what, hint = FILES[case]
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    said = [f"it {what}. {hint}".rstrip(". ")]
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(path)
    with pytest.raises(ModelFileError) as no_header:
        read_model_header(path)
    with pytest.raises(ModelFileError) as no_model:
        load_model(path)
    told = [str(error.value).replace(str(path), "it") for error in (refused, no_header, no_model)]
    told += inspect_file(path).problems
    assert len(told) == 4
    for text in told:
        assert text.startswith(said[0])
        assert not [word for word in ("opcode", "train on", "weights_only", "0x") if word in text]


class WholeModule(torch.nn.Module):
    """Saved as a whole: its class is not installed where it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def test_a_whole_module_is_named(tmp_path: Path) -> None:
    """By its class, with what to save instead; also as one of many in a dict."""
    advice = "Load it where it was made and save its state dict: torch.save(model.state_dict(), path)"
    torch.save(WholeModule(), tmp_path / "x.pt")
    assert told_of(tmp_path / "x.pt") == (
        f"it is a whole pickled module ({__name__}.WholeModule), not its weights. {advice}"
    )
    torch.save({"epoch": 1, "net": WholeModule()}, tmp_path / "x.pt")
    assert told_of(tmp_path / "x.pt") == (
        f"it holds a whole pickled module ({__name__}.WholeModule) under 'net'. {advice}"
    )


def told_of(path: Path) -> str:
    """Return what a conversion says, after making sure that inspect says the same."""
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(path)
    text = str(refused.value).replace(str(path), "it")
    assert inspect_file(path).problems == [text]
    return text


STATE = small_model().state_dict()
CHECKPOINT = checkpoint_dict(STATE)
OTHERS: dict[str, tuple[Any, str]] = {
    "lightning of another": (
        {"pytorch-lightning_version": "2.1", "state_dict": {"net.0.weight": torch.ones(1)}, "epoch": 1},
        "it is a Lightning checkpoint of another model (its weights begin with 'net.0.weight')",
    ),
    "another model's weights": (
        {"layer1.weight": torch.ones(1), "layer1.bias": torch.ones(1)},
        "it holds the weights of another model (they begin with 'layer1.weight')",
    ),
    "vq-vae": (
        {**CHECKPOINT, "model_type": "vqvae"}, "it is of the application's vq-vae branch, another network than ConvVAE"
    ),
    "complex spectrogram": (
        {**CHECKPOINT, "normalization_stats": {"mean": 0.0}},
        "it is of the application's complex-spectrogram branch, another network than ConvVAE",
    ),
    "another type": ({**CHECKPOINT, "model_type": "diffusion"}, "it is of another kind of model ('diffusion')"),
    "a tensor": (torch.ones(3), "it holds a single tensor, not a checkpoint's dict"),
    "a list": ([1, 2], "it holds a list of 2, not a checkpoint's dict"),
    "an optimizer": (
        {"state": {}, "param_groups": []},
        "it is not a checkpoint of this kind: it has no 'model_state_dict', but 'state', 'param_groups'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_other_torch_files_are_named(case: str, tmp_path: Path) -> None:
    """Never "damaged"; the words are inspect's, too."""
    content, words = OTHERS[case]
    torch.save(content, tmp_path / "x.pt")
    assert told_of(tmp_path / "x.pt") == f"{words}. {ONLY_CONVVAE}"


def test_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    """It is not converted again; inspect knows it as what it is."""
    model = small_model()
    content = checkpoint_dict(model.state_dict())
    path = save_model(model, content["spectrogram_config"], content["training_config"], ModelMetadata(), tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"is a finished model \(sda_model\), not a checkpoint\. To have it",
    ):
        read_checkpoint(path)
    assert inspect_file(path).problems == []


class Foreign:
    """Of no package that is installed where it is read."""


FULL = checkpoint_dict(STATE, analysis=made_up_analysis())
ODD: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{key} {name}": ({key: value}, f"it has no usable {key}: it is {what}. Use another checkpoint")
        for key in ("epoch", "step")
        for name, value, what in (
            ("infinite", math.inf, "infinite"), ("NaN", math.nan, "NaN"), ("text", "7", "a text"),
            ("bytes", b"7", "a row of bytes"), ("array", np.zeros(3), "a numpy array"), ("set", {1}, "a set"),
            ("tensor", torch.zeros(3), "a tensor"), ("meta", torch.zeros((), device="meta"), "a tensor"),
            ("large", 2**80, "too large"), ("complex", 1j, "a complex number"),
            ("class", Foreign(), f"a {__name__}.Foreign"),
            ("date", np.datetime64("2020-01-01"), "a number of numpy"), ("dict", {}, "a dict"),
            ("bool", True, "a truth value"),
        )
    },
    "weights of nothing": (
        {"model_state_dict": {name: tensor.to("meta") for name, tensor in STATE.items()}},
        "the weights in it hold no values (they were saved from the 'meta' device). "
        "Save them from the device that they were trained on",
    ),
    "a config of bytes": ({"training_config": b"x"}, "it has a row of bytes as training_config, expected a dict"),
    "a config of text": ({"spectrogram_config": "x"}, "it has a text as spectrogram_config, expected a dict"),
    "a spectrogram of infinite size": (
        {"spectrogram_config": {"n_mels": math.inf}},
        "it cannot be used: spectrogram n_mels must be a positive whole number, not inf",
    ),
    "weights that are a list": ({"model_state_dict": [1]}, "it has no weights: its state dict is a list"),
    "weights that are bytes": (
        {"model_state_dict": {**STATE, "encoder.convs.0.bias": b"x"}},
        "encoder.convs.0.bias in it is a row of bytes, not a tensor",
    ),
    "weights that are arrays": (
        {"model_state_dict": {**STATE, "encoder.convs.0.bias": np.zeros(3)}},
        "encoder.convs.0.bias in it is a numpy array, not a tensor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_values_are_told_in_words(case: str, tmp_path: Path) -> None:
    """No names of what pickles call, no words of Python's own errors; inspect finds nothing wrong with the file."""
    change, words = ODD[case]
    torch.save({**CHECKPOINT, **change}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(tmp_path / "x.pt")
    assert str(refused.value).replace(str(tmp_path / "x.pt"), "it") == words
    assert inspect_file(tmp_path / "x.pt").problems == []


ODD_SLIDERS: dict[str, tuple[Any, str]] = {
    "a list": ([1], "it is a list"),
    "text": ({**FULL["latent_analysis"], "pca_mean": "x"}, "pca_mean is no array of numbers"),
    "something foreign": ({**FULL["latent_analysis"], "pca_mean": Foreign()}, "pca_mean is no array of numbers"),
    "infinite": (
        {**FULL["latent_analysis"], "n_active_components": math.inf},
        "n_active_components must be a whole number, not inf",
    ),
    "no numbers": (
        {**FULL["latent_analysis"], "feature_correlations": {"a": Foreign()}},
        "feature_correlations must be numbers per feature",
    ),
}


@pytest.mark.parametrize("case", ODD_SLIDERS)
def test_odd_sliders_are_told_in_words(case: str, tmp_path: Path) -> None:
    """They cost the sliders, not the model."""
    value, words = ODD_SLIDERS[case]
    torch.save({**CHECKPOINT, "latent_analysis": value}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").dropped == (("latent_analysis", f"unusable: {words}"),)


TOPS: dict[str, tuple[Any, str]] = {
    "bytes": (b"abc", "a row of bytes"), "a bytearray": (bytearray(b"abc"), "a row of bytes"),
    "an array": (np.zeros(3), "a numpy array"), "a number of numpy": (np.float32(1), "a number of numpy"),
    "a set": ({1}, "a set"), "nothing": (None, "nothing"), "a number": (3, "a whole number"), "a text": ("x", "a text"),
    "a sparse tensor": (torch.eye(2).to_sparse(), "a tensor"), "a class": (Foreign, f"a {__name__}.Foreign"),
    "a storage": (torch.ones(2).untyped_storage(), "a tensor's storage"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOPS)
def test_what_is_no_dict_is_told_in_words(case: str, tmp_path: Path) -> None:
    """The same in a conversion and in inspect."""
    value, what = TOPS[case]
    torch.save(value, tmp_path / "x.pt")
    assert told_of(tmp_path / "x.pt") == f"it holds {what}, not a checkpoint's dict. {ONLY_CONVVAE}"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """It is said to be one."""
    assert told_of(tmp_path) == "it is a folder, not a file. Name a file in it"


SPARSE: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "sparse": (lambda tensor: tensor.to_sparse(), "a sparse tensor, not a dense one"),
    "quantized": (
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "a quantized tensor, not a dense one"
    ),
    "without data": (
        lambda tensor: tensor.to("meta"), ""
    ),
    "a text": (lambda _tensor: "x", "a text, not a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPARSE)
def test_weights_of_other_kinds_are_named(case: str, tmp_path: Path) -> None:
    """In words, with the name of the weight."""
    turn, what = SPARSE[case]
    state = {**STATE, "encoder.convs.0.bias": turn(STATE["encoder.convs.0.bias"])}
    torch.save({**checkpoint_dict(STATE), "model_state_dict": state}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(tmp_path / "x.pt")
    expected = (
        f"encoder.convs.0.bias in it is {what}"
        if what
        else (
            "the weights in it hold no values (they were saved from the 'meta' device). "
            "Save them from the device that they were trained on"
        )
    )
    assert str(refused.value).replace(str(tmp_path / "x.pt"), "it") == expected


def finished(**changes: Any) -> dict[str, Any]:
    """Return what a finished model holds, with other values, and without those that are None."""
    model = {
        "format": "distill4_model",
        "version": 1,
        "model_state_dict": STATE,
        "latent_dim": 8,
        "training_config": {},
        "latent_analysis": None,
        "metadata": ModelMetadata(model_id="abc", name="theirs").to_dict(),
    }
    return {key: value for key, value in {**model, **changes}.items() if value is not None}


UNKNOWN_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "the next generation": (finished(), "format 'distill4_model'"),
    "without metadata": (finished(metadata=None), "format 'distill4_model'"),
    "other letters": (finished(format="SDA_MODEL"), "format 'SDA_MODEL'"),
    "bytes": (finished(format=b"sda_model"), "format 'sda_model'"),
    "numpy's text": (finished(format=np.str_("distill4_model")), "format 'distill4_model'"),
    "a number": (finished(format=4, metadata=None), "format 4"),
    "a list": (finished(format=["sda_model"], metadata=None), "format list"),
    "without a marker": (finished(format=None), "it has no format marker"),
    "with the state of a training": (
        {**checkpoint_dict(STATE), "format": "distill4_model"},
        "format 'distill4_model'",
    ),
    "that, without a marker": (
        {**checkpoint_dict(STATE), "metadata": ModelMetadata(model_id="abc").to_dict()},
        "it has no format marker",
    ),
    "a newer layout": (finished(version=7), "format 'distill4_model'"),
    "a version in the marker, and an epoch": (finished(format="sda_model_v2", epoch=3), "format 'sda_model_v2'"),
    "few words, a step, no marker": (
        finished(format=None, step=7, metadata={"model_id": "x", "name": "n"}),
        "it has no format marker",
    ),
    "a vocoder": (finished(format=None, metadata=None, vocoder_state={"x": 1}), "it has no format marker"),
    "weights of another name": (
        finished(model_state_dict=None, weights={"generator.0.weight": torch.zeros(2, 2)}),
        "format 'distill4_model'",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN_MODELS)
def test_a_model_of_an_unknown_generation_is_no_checkpoint(case: str, tmp_path: Path) -> None:
    """A finished model is never a source, whichever program has saved it; all readers name it so."""
    content, told = UNKNOWN_MODELS[case]
    path = tmp_path / "x.pt"
    torch.save(content, path)
    words = f"is a finished model of another program or a later version ({told}). It is left alone"
    with pytest.raises(FinishedModelError) as refused:
        read_checkpoint(path)
    assert words in str(refused.value)
    found = inspect_file(path)
    assert found.kind is FileKind.MODEL
    assert [words in problem for problem in found.problems] == [True]
    with pytest.raises(ModelFileError) as refused_as_model:
        read_model_header(path)
    assert words in str(refused_as_model.value)


WIDE_STATE = small_model(n_mels=128).state_dict()
STILL_CHECKPOINTS: dict[str, dict[str, Any]] = {
    "as it is": checkpoint_dict(STATE),
    "bare weights": dict(WIDE_STATE),
    "only weights": {"model_state_dict": WIDE_STATE},
    "foreign keys": {**checkpoint_dict(STATE), "git": "abc", "host": "here", "metadata": {"git": 1, "seed": 2}},
    "a format of its own": {**checkpoint_dict(STATE), "format": "pytorch"},
    "no format": {**checkpoint_dict(STATE), "format": None},
    "words about the run": {
        **checkpoint_dict(STATE), "metadata": {"name": "run", "description": "x", "tags": [], "model_id": "m"}
    },
    "odd metadata": {"model_state_dict": WIDE_STATE, "metadata": [1, 2]},
    "Lightning": {
        "pytorch-lightning_version": "2.5.0", "state_dict": WIDE_STATE, "epoch": 1, "metadata": {"name": "run"}
    },
}  # fmt: skip


@pytest.mark.parametrize("case", STILL_CHECKPOINTS)
def test_a_checkpoint_with_foreign_keys_is_a_checkpoint(case: str, tmp_path: Path) -> None:
    """What else stands in it makes no model of it."""
    torch.save(STILL_CHECKPOINTS[case], tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").layout.latent_dim == 8
    assert inspect_file(tmp_path / "x.pt").problems == []
