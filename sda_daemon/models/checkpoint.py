"""Reads training checkpoints, and never runs anything that is in them.

`torch_file` does the reading; here it is decided what it means, and whether it can be converted.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sda_daemon.audio.spectrogram import SpectrogramConfig
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.serialization import analysis_from_dict
from sda_daemon.errors import (
    BrokenCheckpointError,
    ForeignCheckpointError,
    MisfittingWeightsError,
    NewerCheckpointError,
    NonFiniteWeightsError,
    OversizedCheckpointError,
)
from sda_daemon.models.torch_file import TorchFile, read_torch_file
from sda_daemon.models.vae import OutputActivation, WeightsLayout, weights_layout
from sda_daemon.torchfile.plain import describe_foreign, plain_value

CHECKPOINT_VERSION = 1
"""Newest version of the training application's checkpoints that this program knows."""
_LARGEST_INTEGER = 2**63

_PREFIXES = ("module.", "_orig_mod.")
"""Put before every weight's name by DataParallel and torch.compile."""

_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER_TYPES = (torch.int64, torch.int32, torch.float32)

_USED_KEYS = frozenset(
    {
        "version",
        "model_state_dict",
        "training_config",
        "spectrogram_config",
        "latent_analysis",
        "epoch",
        "step",
        "train_loss",
        "val_loss",
        "kl_weight",
    }
)


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
        source_digest: tells the file's content from any other; see `torch_file.TorchFile`.
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
    source_digest: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a training checkpoint.

    Raises:
        CheckpointError: the file cannot be converted; the subclass says why.
        OSError: the file cannot be read.
    """
    file = read_torch_file(path, leave_out=_unused_keys)
    content = file.content
    if not isinstance(content, dict):
        raise ForeignCheckpointError(f"{path} holds a {describe_foreign(content)}, not a checkpoint's dict")
    if "model_state_dict" not in content:
        if _is_bare_state_dict(content):
            return _interpret({"model_state_dict": content}, path, file, is_bare=True)
        keys = ", ".join(reprlib.repr(key) for key in list(content)[:8]) or "nothing"
        raise ForeignCheckpointError(
            f"{path} is not a checkpoint of this kind: it has no 'model_state_dict', but {keys}",
            "Only checkpoints of a ConvVAE can be converted",
        )
    return _interpret(content, path, file, is_bare=False)


def _unused_keys(content: Mapping[Any, Any]) -> list[Any]:
    """Return what need not be read: the optimizer, averages of the weights, the history; of bare weights, nothing."""
    return [key for key in content if key not in _USED_KEYS] if "model_state_dict" in content else []


def _is_bare_state_dict(content: Mapping[Any, Any]) -> bool:
    names = [_strip(key) for key in content if isinstance(key, str)]
    return len(names) == len(content) > 0 and all(name.startswith(("encoder.", "decoder.")) for name in names)


def _interpret(content: Mapping[str, Any], path: Path, file: TorchFile, *, is_bare: bool) -> Checkpoint:
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
    weights = checked_weights(content["model_state_dict"], path, file.size_bytes)
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
        source_digest=file.digest,
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
