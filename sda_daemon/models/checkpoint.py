"""Reads training checkpoints, and never runs anything that is in them.

`torch_file` does the reading; here it is decided what it means, and whether it can be converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    FinishedModelError,
    MisfittingWeightsError,
    NewerCheckpointError,
    NonFiniteWeightsError,
    OversizedCheckpointError,
)
from sda_daemon.models.contents import (
    WEIGHTS_KEY,
    FileKind,
    kind_of,
    kind_of_content,
    plain_names,
    unused_keys,
    unwrap_checkpoint,
)
from sda_daemon.models.formats import FORMATS, trained_activation
from sda_daemon.models.playability import training_package
from sda_daemon.models.torch_file import TorchFile, checkpoint_error, read_torch_file
from sda_daemon.models.vae import OutputActivation, WeightsLayout, weights_layout
from sda_daemon.torchfile.allowance import begin_file
from sda_daemon.torchfile.faults import Fault
from sda_daemon.torchfile.globals import META_FUNCTION, TENSOR_FUNCTIONS
from sda_daemon.torchfile.outlines import tensor_call
from sda_daemon.torchfile.plain import describe_foreign, plain_value
from sda_daemon.torchfile.stand_ins import StandIn
from sda_daemon.torchfile.values import fields_of, mapping_of, omega_value
from sda_daemon.wording import quoted

CHECKPOINT_VERSION = 1
"""Newest version of the training application's checkpoints that this program knows."""
_LARGEST_INTEGER = 2**63
_MOST_LOOKED_AT = 1000
_MOST_WEIGHTS = 10_000
"""Of one model; real ones have some sixty."""

_EXPANDED_BYTES = 64 * 2**20
"""A weight may be one number that stands for many; that much more than the file the weights may take."""
_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER_TYPES = (torch.int64, torch.int32, torch.float32)


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
        trained_by: package of the application that wrote it, empty where nothing in the file tells.
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
    trained_by: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a training checkpoint.

    Raises:
        CheckpointError: the file cannot be converted; the subclass says why.
        OSError: the file cannot be read.
    """
    file = read_torch_file(path, leave_out=unused_keys)
    try:
        return _understood(file, path)
    except Fault as fault:  # it costs more than it is worth
        raise checkpoint_error(fault, path) from fault


def _understood(file: TorchFile, path: Path) -> Checkpoint:
    begin_file(file.size_bytes)
    fault = kind_of_content(file.content)
    if fault is not None and kind_of(file.content) is FileKind.MODEL:
        raise FinishedModelError(f"{path} {fault.what}", fault.hint)
    if fault is not None:
        raise checkpoint_error(fault, path)
    wrapped = unwrap_checkpoint(file.content)
    assert wrapped is not None  # that is what was just asked
    return _interpret(wrapped.content, path, file, is_bare=wrapped.is_bare)


def _interpret(content: Mapping[str, Any], path: Path, file: TorchFile, *, is_bare: bool) -> Checkpoint:
    version = _scalar(content.get("version", CHECKPOINT_VERSION))
    if isinstance(version, bool) or not isinstance(version, int):
        raise BrokenCheckpointError(f"{path} has no usable version number, but {quoted(version)}")
    if version > CHECKPOINT_VERSION:
        raise NewerCheckpointError(
            f"{path}: checkpoint version {quoted(version)} is newer than supported version {CHECKPOINT_VERSION}",
            "Update sda-daemon",
        )
    dropped: list[tuple[str, str]] = []

    def note(key: str, what: str) -> None:
        dropped.append((key, what))

    training = _plain_config(content, "training_config", path, note)
    spectrogram_config = _plain_config(content, "spectrogram_config", path, note)
    try:
        spectrogram = SpectrogramConfig.from_dict(spectrogram_config)
    except ValueError as error:
        raise BrokenCheckpointError(f"{path} cannot be used: {error}") from error
    weights = checked_weights(content[WEIGHTS_KEY], path, file.size_bytes, note)
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
        decoder_activation=trained_activation(training),
        dropped=tuple(dropped),
        is_bare=is_bare,
        source_digest=file.digest,
        trained_by=_trained_by(content.get("training_config")),
    )


def _trained_by(training_config: Any) -> str:
    """Return the package whose enum a training config names, empty where it names none."""
    packages = {training_package(item) for item in FORMATS}
    for value in list((fields_of(training_config) or {}).values())[:_MOST_LOOKED_AT]:
        for part in (value, *(value.args if isinstance(value, StandIn) else ())):
            package = str(getattr(part, "foreign_name", "")).partition(".")[0]
            if package in packages:
                return package
    return ""


def _plain_config(content: Mapping[str, Any], key: str, path: Path, note: Any) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    fields = fields_of(omega_value(value))
    if fields is None:
        if not isinstance(value, StandIn):
            raise BrokenCheckpointError(f"{path} has a {describe_foreign(value)} as {key}, expected a dict")
        note(key, describe_foreign(value))  # the model can do without
        return {}
    plain = plain_value(fields, note, key)
    return plain if isinstance(plain, dict) else {}


def _number(content: Mapping[str, Any], key: str, wanted: type, path: Path) -> Any:
    value = _scalar(content.get(key))
    if value is None:
        return wanted(0)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"it is a {describe_foreign(value)}")
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise ValueError("it is too large")
        if wanted is int and not math.isfinite(value):
            raise ValueError("it is NaN" if math.isnan(value) else "it is infinite")
    except ValueError as error:
        raise BrokenCheckpointError(f"{path} has no usable {key}: {error}", "Use another checkpoint") from error
    return wanted(value)


def _scalar(value: Any) -> Any:
    """Return a number that was saved as a tensor, an array or numpy's own number; anything else as it is."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta:
        return value.item()
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        return value.item()
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _analysis(value: Any, latent_dim: int, note: Any) -> AnalysisResult | None:
    """Read the analysis; a broken one costs the sliders, not the model."""
    if value is None:
        return None
    try:
        found = mapping_of(value)
        if found is None:
            raise TypeError(f"it is a {describe_foreign(value)}")
        analysis = analysis_from_dict(found)
        if analysis.pca_mean.shape[0] != latent_dim:
            raise ValueError(f"it is for {analysis.pca_mean.shape[0]} latent dimensions, the weights have {latent_dim}")
    except (TypeError, ValueError, OverflowError) as error:
        note("latent_analysis", f"unusable: {error}")
        return None
    return analysis


def checked_weights(
    value: Any, path: Path, size_bytes: int, note: Callable[[str, str], None] = lambda _key, _what: None
) -> dict[str, Tensor]:
    """Return a state dict in which every value is a dense, finite tensor that the file really holds.

    The names are those of the model, without what wrappers put before them.

    Args:
        value: the state dict as it was read.
        path: the file, for messages.
        size_bytes: its size.
        note: called with the name of what is left out, and what that is.

    Raises:
        CheckpointError: something is not so; the subclass says what.
    """
    given = mapping_of(value)
    if not given:
        what = "empty" if given is not None else f"a {describe_foreign(value)}"
        raise MisfittingWeightsError(f"{path} has no weights: its state dict is {what}")
    weights: dict[str, Tensor] = {}
    total_bytes = 0
    wanted = _wanted_names(given, path, note)
    if len(wanted) > _MOST_WEIGHTS:
        raise MisfittingWeightsError(f"{path} has {len(wanted)} weights, far more than any ConvVAE")
    for raw_name, name in wanted.items():
        tensor = given[raw_name]
        if not isinstance(tensor, Tensor):
            call = tensor_call(tensor)
            if call is not None and call[0] == META_FUNCTION:
                raise MisfittingWeightsError(
                    f"the weights in {path} hold no values (they were saved from the 'meta' device)",
                    "Save them from the device that they were trained on",
                )
            raise MisfittingWeightsError(f"{name} in {path} is {_described(tensor)}")
        if tensor.is_meta:
            raise MisfittingWeightsError(f"{name} in {path} holds values of a type that is not known")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise MisfittingWeightsError(f"{name} in {path} is not a dense tensor")
        if tensor.dtype not in (_COUNTER_TYPES if name.endswith(".num_batches_tracked") else _WEIGHT_TYPES):
            raise MisfittingWeightsError(f"{name} in {path} holds values of type {tensor.dtype}")
        total_bytes += tensor.numel() * tensor.element_size()
        if total_bytes > size_bytes + _EXPANDED_BYTES:
            raise OversizedCheckpointError(
                f"the weights in {path} claim more than the {size_bytes} bytes of the file (at {name})"
            )
        weights[name] = tensor.detach().resolve_conj().resolve_neg()
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


def _wanted_names(given: Mapping[Any, Any], path: Path, note: Callable[[str, str], None]) -> dict[str, str]:
    """Return the names that are to be read, to the model's own; what cannot be a weight of it is noted."""
    for name in given:
        if not isinstance(name, str):
            raise MisfittingWeightsError(f"{path} has a {describe_foreign(name)} as the name of a weight")
    names = plain_names(given)
    for prefix in names.other_copies:
        if {prefix + name for name in names.weights.values()} - given.keys():  # no whole copy: what is what?
            name = next(name for name in given if name.startswith(prefix) and name not in names.weights)
            raise MisfittingWeightsError(f"{path} has two weights called {name.removeprefix(prefix)}")
        note(f"{WEIGHTS_KEY}.{prefix}*", "another copy of the weights")
    wanted = dict(names.weights)
    for name in names.companions:
        if names.weights and _is_count(given[name]):
            note(f"{WEIGHTS_KEY}.{name}", "not a weight")
        elif names.prefix and not name.startswith(names.prefix):  # of another module: a loss, a discriminator
            note(f"{WEIGHTS_KEY}.{name}", "not a weight of this model")
        else:
            wanted[name] = name
    if len(set(wanted.values())) < len(wanted):
        raise MisfittingWeightsError(f"{path} has two weights of the same name")
    return wanted


def _is_count(value: Any) -> bool:
    """Tell whether something beside the weights is a single number, such as how many an average is of."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    return value is None or isinstance(value, bool | int | float)


def _described(value: Any) -> str:
    call = tensor_call(value)
    return f"{TENSOR_FUNCTIONS[call[0]]}, not a dense one" if call else f"a {describe_foreign(value)}, not a tensor"
