"""Loads model files of this program and of the training application, and never runs anything in them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sda_daemon.audio.spectrogram import AudioSpectrogram, SpectrogramConfig
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.serialization import analysis_from_dict
from sda_daemon.errors import BrokenModelError, CheckpointError, ModelFileError, NotAModelError
from sda_daemon.models.checkpoint import checked_weights
from sda_daemon.models.formats import stored_activation
from sda_daemon.models.header import metadata_of, model_error
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.models.provenance import Provenance
from sda_daemon.models.torch_file import TorchFile, read_torch_file
from sda_daemon.models.vae import STRIDE, ConvVAE, OutputActivation, WeightsLayout, build_model, weights_layout
from sda_daemon.torchfile.allowance import begin_file
from sda_daemon.torchfile.faults import Fault
from sda_daemon.torchfile.plain import describe_foreign, plain_value
from sda_daemon.torchfile.values import fields_of, mapping_of, omega_value

_LONGEST_CHUNK_S = 1e6


@dataclasses.dataclass
class LoadedModel:
    """A model that is ready to generate from.

    Attributes:
        model: in eval mode, on `device`.
        spectrogram: turns the model's mel spectrograms into sound, on `device`.
        analysis: what drives the sliders, or None.
        metadata: description.
        device: where model and spectrogram are.
    """

    model: ConvVAE
    spectrogram: AudioSpectrogram
    analysis: AnalysisResult | None
    metadata: ModelMetadata
    device: torch.device


@dataclasses.dataclass(frozen=True, slots=True)
class StoredModel:
    """What the file of a model holds by which it can be verified.

    Attributes:
        weights: by the model's own names, on the CPU, exactly as stored.
        provenance: where the model came from, as the file tells.
    """

    weights: dict[str, Tensor]
    provenance: Provenance


def load_model(model_path: Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Load a model, ready to generate from; nothing in the file is executed.

    Args:
        model_path: a model file of this program or of any generation of the training application.
        device: where to put it, such as "cpu", "cuda" or "mps".

    Raises:
        NotAModelError: not a model file (a ValueError, like all of these).
        NewerModelError: saved by a later version.
        BrokenModelError: truncated or damaged, weights missing or misfitting.
        OSError: the file cannot be read.
    """
    path = Path(model_path)
    where = torch.device(device)
    file = _read(path)
    with _faults_as_errors(path):
        return _understood(file, path, where)[0]


def open_model(path: Path) -> StoredModel:
    """Open a model completely, as `load_model` does, and return what its file holds.

    Raises:
        ModelFileError, OSError: see `load_model`.
    """
    file = _read(path)
    with _faults_as_errors(path):
        _, weights = _understood(file, path, torch.device("cpu"))
        content = mapping_of(file.content) or {}
        return StoredModel(weights, Provenance.read(mapping_of(content.get("provenance")) or {}))


@contextlib.contextmanager
def _faults_as_errors(path: Path) -> Iterator[None]:
    """Raise the error of a model file for one that costs more than it is worth."""
    try:
        yield
    except Fault as fault:
        raise model_error(fault, path) from fault


def _understood(file: TorchFile, path: Path, where: torch.device) -> tuple[LoadedModel, dict[str, Tensor]]:
    """Return the model, and its weights as they are stored."""
    begin_file(file.size_bytes)
    content = mapping_of(file.content)
    if content is None:
        raise NotAModelError(f"{path} is not a saved model: it holds a {describe_foreign(file.content)}")
    metadata = metadata_of(content, path)
    training = _config(content, "training_config", path)
    try:
        spectrogram_config = SpectrogramConfig.from_dict(_config(content, "spectrogram_config", path))
        weights = checked_weights(content.get("model_state_dict"), path, file.size_bytes)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        layout = weights_layout(shapes, spectrogram_config.n_mels)
        analysis = _analysis(content.get("latent_analysis"), layout.latent_dim)
    except ModelFileError:
        raise
    except ValueError as error:
        reason = error.what if isinstance(error, CheckpointError) else str(error)
        raise BrokenModelError(f"{path} cannot be used: {reason}") from error
    model = _assemble(layout, weights, stored_activation(content, training), where)
    model.mel_shape = _mel_shape(layout, spectrogram_config, training)
    metadata.has_analysis = analysis is not None
    metadata.n_active_components = analysis.n_active_components if analysis else 0
    return LoadedModel(model, AudioSpectrogram(spectrogram_config).to(where), analysis, metadata, where), weights


def _read(path: Path) -> TorchFile:
    if not path.exists():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        return read_torch_file(path)
    except CheckpointError as error:
        if isinstance(error.__cause__, Fault):
            raise model_error(error.__cause__, path) from error
        raise BrokenModelError(error.what, error.hint) from error


def _config(content: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.get(key)
    fields = fields_of(omega_value(value))
    if value is not None and fields is None:
        raise BrokenModelError(f"{path} has a {describe_foreign(value)} as {key}, expected a dict")
    plain = plain_value(fields, lambda _where, _what: None)
    return plain if isinstance(plain, dict) else {}


def _analysis(value: Any, latent_dim: int) -> AnalysisResult | None:
    if value is None:
        return None
    found_analysis = mapping_of(value)
    if found_analysis is None:
        raise ValueError(f"its analysis is a {describe_foreign(value)}")
    analysis = analysis_from_dict(found_analysis)
    found = analysis.pca_mean.shape[0]
    if found != latent_dim:
        raise ValueError(f"its analysis is for {found} latent dimensions, the weights have {latent_dim}")
    return analysis


def _assemble(
    layout: WeightsLayout, weights: Mapping[str, Tensor], activation: OutputActivation, device: torch.device
) -> ConvVAE:
    """Build the model around its weights: no random initialization that would be overwritten at once."""
    with torch.device("meta"):
        model = build_model(layout, activation)
    placed = {
        name: tensor.to(device, torch.int64 if name.endswith(".num_batches_tracked") else torch.float32).contiguous()
        for name, tensor in weights.items()
    }
    model.load_state_dict(placed, assign=True)
    model.requires_grad_(True)
    return model.eval()


def _mel_shape(layout: WeightsLayout, config: SpectrogramConfig, training: Mapping[str, Any]) -> tuple[int, int]:
    """Return (n_mels, frames) of the training's chunks; without their duration, as many frames as there can be."""
    most = layout.columns * STRIDE
    duration_s = training.get("chunk_duration_s", 1.0)
    if isinstance(duration_s, int | float) and 0 < duration_s < _LONGEST_CHUNK_S:
        frames = int(duration_s * config.sample_rate) // config.hop_length + 1
        if most - STRIDE < frames <= most:
            return config.n_mels, frames
    return config.n_mels, most
