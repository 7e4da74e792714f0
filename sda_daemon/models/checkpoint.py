"""Reads training checkpoints, and never runs anything that is in them.

torch's weights-only unpickler does the reading. Names that it does not know (every real checkpoint
names an enum of the training application) are given inert stand-ins; names of the standard library,
torch and numpy that torch itself does not allow are refused before anything is loaded.
"""

from __future__ import annotations

import os
import reprlib
import stat
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from torch import Tensor

from sda_daemon.audio.spectrogram import SpectrogramConfig
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.serialization import analysis_from_dict
from sda_daemon.errors import (
    BrokenCheckpointError,
    CheckpointError,
    ForeignCheckpointError,
    MisfittingWeightsError,
    NewerCheckpointError,
    NonFiniteWeightsError,
    OversizedCheckpointError,
    UnsafeCheckpointError,
)
from sda_daemon.models.archive import OversizedArchiveError, read_pickle_entry
from sda_daemon.models.names import Judgement, judge_name, modern_name
from sda_daemon.models.pickles import outline_pickle
from sda_daemon.models.plain import describe_foreign, plain_value, stand_in_class
from sda_daemon.models.vae import OutputActivation, WeightsLayout, weights_layout

CHECKPOINT_VERSION = 1
"""Newest version of the training application's checkpoints that this program knows."""
MAX_PICKLE_BYTES = 512 * 2**20
"""Largest `data.pkl`; a long metrics history makes tens of megabytes."""
_MAX_LEGACY_PICKLES = 5
_LARGEST_INTEGER = 2**63

_PREFIXES = ("module.", "_orig_mod.")
"""Put before every weight's name by DataParallel and torch.compile."""

_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER_TYPES = (torch.int64, torch.int32, torch.float32)

_allow_lock = threading.Lock()  # torch's list of allowed names is global


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training checkpoint, checked: its weights are finite and make a ConvVAE.

    Attributes:
        path: the file.
        state_dict: the weights, on the CPU, exactly as stored.
        layout: sizes that follow from the weights.
        epoch, step: where training stood; `epoch` counts from 0.
        train_loss, val_loss, kl_weight: as stored; `val_loss` is inf where training was cancelled.
        training_config: plain values only.
        spectrogram_config: of the mel spectrograms that it was trained on.
        analysis: what drives the sliders, or None.
        decoder_activation: which the training application used.
        dropped: (key, foreign name) of values that plain files cannot hold.
        is_bare: whether the file was only a state dict, without anything around it.
    """

    path: Path
    state_dict: dict[str, Tensor]
    layout: WeightsLayout
    epoch: int = 0
    step: int = 0
    train_loss: float = 0.0
    val_loss: float = 0.0
    kl_weight: float = 0.0
    training_config: dict[str, Any] = field(default_factory=dict)
    spectrogram_config: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    analysis: AnalysisResult | None = None
    decoder_activation: OutputActivation = "sigmoid"
    dropped: tuple[tuple[str, str], ...] = ()
    is_bare: bool = False


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a training checkpoint.

    The weights are mapped from the file, not read: the file must not change while they are used.

    Raises:
        CheckpointError: the file cannot be converted; the subclass says why.
        OSError: the file cannot be read.
    """
    size_bytes = path.stat().st_size
    content = read_torch_file(path)
    if not isinstance(content, dict):
        raise ForeignCheckpointError(f"{path} holds a {describe_foreign(content)}, not a checkpoint's dict")
    if "model_state_dict" not in content:
        if _is_bare_state_dict(content):
            return _interpret({"model_state_dict": content}, path, size_bytes, is_bare=True)
        keys = ", ".join(reprlib.repr(key) for key in list(content)[:8]) or "nothing"
        raise ForeignCheckpointError(
            f"{path} is not a checkpoint of this kind: it has no 'model_state_dict', but {keys}",
            "Only checkpoints of a ConvVAE can be converted",
        )
    return _interpret(content, path, size_bytes, is_bare=False)


def _is_bare_state_dict(content: Mapping[Any, Any]) -> bool:
    names = [_strip(key) for key in content if isinstance(key, str)]
    return len(names) == len(content) > 0 and all(name.startswith(("encoder.", "decoder.")) for name in names)


def _interpret(content: Mapping[str, Any], path: Path, size_bytes: int, *, is_bare: bool) -> Checkpoint:
    version = content.get("version", CHECKPOINT_VERSION)
    if isinstance(version, bool) or not isinstance(version, int):
        raise BrokenCheckpointError(f"{path} has no usable version number, but {reprlib.repr(version)}")
    if version > CHECKPOINT_VERSION:
        raise NewerCheckpointError(
            f"{path}: checkpoint version {version} is newer than supported version {CHECKPOINT_VERSION}",
            "Update sda-daemon",
        )
    dropped: list[tuple[str, str]] = []

    def note(key: str, what: str) -> None:
        dropped.append((key, what))

    training = _plain_config(content, "training_config", path, note)
    try:
        spectrogram = SpectrogramConfig.from_dict(_plain_config(content, "spectrogram_config", path, note))
    except ValueError as error:
        raise BrokenCheckpointError(f"{path}: {error}") from error
    weights = checked_weights(content["model_state_dict"], path, size_bytes)
    try:
        layout = weights_layout({name: tuple(t.shape) for name, t in weights.items()}, spectrogram.n_mels)
    except ValueError as error:
        raise MisfittingWeightsError(f"the weights in {path} do not make a ConvVAE: {error}") from error
    return Checkpoint(
        path=path,
        state_dict=weights,
        layout=layout,
        epoch=_number(content, "epoch", int, path),
        step=_number(content, "step", int, path),
        train_loss=_number(content, "train_loss", float, path),
        val_loss=_number(content, "val_loss", float, path),
        kl_weight=_number(content, "kl_weight", float, path),
        training_config=training,
        spectrogram_config=spectrogram,
        analysis=_analysis(content.get("latent_analysis"), layout.latent_dim, note),
        decoder_activation=activation_of(training),
        dropped=tuple(dropped),
        is_bare=is_bare,
    )


def activation_of(training_config: Mapping[str, Any]) -> OutputActivation:
    """Tell the decoder's output activation, which the weights do not show.

    The training application changed it when it introduced `kl_weight_max`.
    """
    return "softplus" if "kl_weight_max" in training_config else "sigmoid"


def _plain_config(content: Mapping[str, Any], key: str, path: Path, note: Any) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BrokenCheckpointError(f"{path} has a {describe_foreign(value)} as {key}, expected a dict")
    plain = plain_value(value, note, key)
    assert isinstance(plain, dict)
    return plain


def _number(content: Mapping[str, Any], key: str, wanted: type, path: Path) -> Any:
    value = content.get(key)
    if value is None:
        return wanted(0)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, np.generic):
        value = value.item()
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"it is a {describe_foreign(value)}")
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise ValueError("it is too large")
        return wanted(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BrokenCheckpointError(f"{path} has no usable {key}: {error}") from error


def _analysis(value: Any, latent_dim: int, note: Any) -> AnalysisResult | None:
    """Read the analysis; a broken one costs the sliders, not the model."""
    if value is None:
        return None
    try:
        if not isinstance(value, dict):
            raise TypeError(f"it is a {describe_foreign(value)}")
        analysis = analysis_from_dict(value)
        if analysis.pca_mean.shape[0] != latent_dim:
            raise ValueError(f"it is for {analysis.pca_mean.shape[0]} latent dimensions, the weights have {latent_dim}")
    except (TypeError, ValueError, OverflowError) as error:
        note("latent_analysis", f"unusable: {error}")
        return None
    return analysis


def checked_weights(value: Any, path: Path, size_bytes: int) -> dict[str, Tensor]:
    """Return a state dict in which every value is a dense, finite tensor that the file really holds.

    Raises:
        CheckpointError: something is not so; the subclass says what.
    """
    if not isinstance(value, dict) or not value:
        what = "empty" if isinstance(value, dict) else f"a {describe_foreign(value)}"
        raise MisfittingWeightsError(f"{path} has no weights: its state dict is {what}")
    weights: dict[str, Tensor] = {}
    total_bytes = 0
    for raw_name, tensor in value.items():
        if not isinstance(raw_name, str):
            raise MisfittingWeightsError(f"{path} has a {describe_foreign(raw_name)} as the name of a weight")
        name = _strip(raw_name)
        if name in weights:
            raise MisfittingWeightsError(f"{path} has two weights called {name}")
        if not isinstance(tensor, Tensor):
            raise MisfittingWeightsError(f"{name} in {path} is a {describe_foreign(tensor)}, not a tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise MisfittingWeightsError(f"{name} in {path} is not a dense tensor")
        if tensor.dtype not in (_COUNTER_TYPES if name.endswith(".num_batches_tracked") else _WEIGHT_TYPES):
            raise MisfittingWeightsError(f"{name} in {path} holds values of type {tensor.dtype}")
        total_bytes += tensor.numel() * tensor.element_size()
        if total_bytes > size_bytes:
            raise OversizedCheckpointError(
                f"the weights in {path} claim more than the {size_bytes} bytes of the file (at {name})"
            )
        weights[name] = tensor.detach()
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteWeightsError(
                f"{name} in {path} has {bad} values that are NaN or infinite",
                "Training has diverged; use an earlier checkpoint",
            )
    return weights


def _is_finite(tensor: Tensor) -> bool:
    """Tell whether all values are finite.

    A sum is several times as fast as a look at each value, and NaN and infinity carry through it; only where it is
    not finite (it may also have overflowed) each value is looked at.
    """
    total = tensor.sum(dtype=torch.float64 if tensor.dtype is torch.float64 else torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


# --- reading without running ----------------------------------------------------------------------


def read_torch_file(path: Path, *, mapped: bool = True) -> Any:
    """Load what `torch.save` wrote, with stand-ins for all that is foreign; nothing in it is executed.

    Args:
        path: the file.
        mapped: whether tensors stay in the file until they are used (it must not change then), or are read at once.

    Raises:
        UnsafeCheckpointError: it names a function that has no business there.
        OversizedCheckpointError: it promises more than it holds.
        BrokenCheckpointError: truncated, damaged, or not written by torch.
        ForeignCheckpointError: a TorchScript program.
        OSError: it cannot be read.
    """
    names, is_zip = _names_in(path)
    stand_ins = _stand_ins(names, path)
    try:
        with _allowed(stand_ins), warnings.catch_warnings(), _nameable(path) as name:
            warnings.simplefilter("ignore")
            return torch.load(name, map_location="cpu", weights_only=True, mmap=True if is_zip and mapped else None)
    except UnpicklingError as error:
        _explain_refusal(error, path)
    except OSError:
        raise
    except MemoryError as error:
        raise OversizedCheckpointError(f"{path} asks for more memory than there is") from error
    except Exception as error:  # torch reports damage as RuntimeError, KeyError, struct.error, …
        if "allocate" in str(error) or "out of memory" in str(error):
            raise OversizedCheckpointError(f"{path} asks for more memory than there is") from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BrokenCheckpointError(f"{path} is damaged: {reason}", "Copy it again, or train on") from error


def _explain_refusal(error: UnpicklingError, path: Path) -> NoReturn:
    text = str(error)
    for marker in ("GLOBAL ", "reduce for unrecognized function ", "create new object for "):
        if marker in text:
            name = text.split(marker, 1)[1].split(" ", 1)[0].rstrip(".,")
            raise UnsafeCheckpointError(f"{path} wants to call {name}; nothing of it was run") from error
    raise BrokenCheckpointError(f"{path} is no checkpoint that torch can read safely: {text[:300]}") from error


@contextmanager
def _nameable(path: Path) -> Iterator[str]:
    """Give a file a name that torch can open: it wants UTF-8, which a name on disk need not be."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield str(path)


@contextmanager
def _allowed(stand_ins: list[Any]) -> Iterator[None]:
    with _allow_lock, torch.serialization.safe_globals(stand_ins):
        yield


def _names_in(path: Path) -> tuple[frozenset[str], bool]:
    """Return every name that the file's pickles would import, and whether it is a zip file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BrokenCheckpointError(f"{path} is no regular file")
    if status.st_size == 0:
        raise BrokenCheckpointError(f"{path} is empty")
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        try:
            if is_zip:
                return _zip_names(file, path, status.st_size), True
            return _legacy_names(file.read(min(status.st_size, MAX_PICKLE_BYTES)), path), False
        except (ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise BrokenCheckpointError(f"{path} is truncated, damaged or no checkpoint ({error})") from error


def _zip_names(file: BinaryIO, path: Path, size_bytes: int) -> frozenset[str]:
    try:
        data, parts = read_pickle_entry(file, size_bytes, MAX_PICKLE_BYTES)
    except OversizedArchiveError as error:
        raise OversizedCheckpointError(f"{path} is no honest checkpoint: {error}") from error
    if "constants.pkl" in parts:
        raise ForeignCheckpointError(f"{path} is a TorchScript program, not a checkpoint")
    if data is None:
        raise BrokenCheckpointError(f"{path} is a zip file, but torch did not write it")
    return outline_pickle(data).names


def _legacy_names(data: bytes, path: Path) -> frozenset[str]:
    """Names of a file from before torch 1.6: several pickles one after the other, then the storages."""
    if data[257:262] == b"ustar":
        raise BrokenCheckpointError(
            f"{path} is in torch's old tar format, which cannot be read safely",
            "Load it where it was trained and save it again with a current torch",
        )
    if os.fsencode(path.name).endswith(b".zip"):
        raise BrokenCheckpointError(f"{path} is no checkpoint")
    names: set[str] = set()
    position = 0
    for _ in range(_MAX_LEGACY_PICKLES):
        outline = outline_pickle(data, position)
        names |= outline.names
        position = outline.end
        if position >= len(data):
            break
    return frozenset(names)


def _stand_ins(names: frozenset[str], path: Path) -> list[Any]:
    """Return what torch is to build for each name that it does not know; refuse dangerous ones."""
    allowed: list[Any] = []
    for name in sorted(names):
        shown = modern_name(name)
        match judge_name(name):
            case Judgement.NUMPY:
                allowed += _numpy_names(name, shown.rpartition(".")[2])
            case Judgement.FOREIGN:
                allowed.append((stand_in_class(name), name))
            case Judgement.REFUSED:
                raise UnsafeCheckpointError(
                    f"{path} wants to call {shown}; nothing of it was run",
                    "Do not trust where this file came from",
                )
            case _:
                continue  # torch allows it, or refuses it with its name in the message
    return allowed


def _numpy_names(name: str, attribute: str) -> list[Any]:
    if name.startswith("numpy.dtypes."):
        return []
    reconstruct, scalar = _numpy_functions()
    thing = {"_reconstruct": reconstruct, "scalar": scalar, "ndarray": np.ndarray, "dtype": np.dtype}[attribute]
    dtypes = [getattr(np.dtypes, kind) for kind in dir(np.dtypes) if kind.endswith("DType")]
    return [(thing, name), *(d for d in dtypes if d is not np.dtypes.ObjectDType)]


def _numpy_functions() -> tuple[Any, Any]:
    """Numpy's two functions that pickles of arrays and of scalars name."""
    reconstruct = np.zeros(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    return reconstruct, scalar
