"""Save, load, delete and convert models: the API that the training application and scripts call."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sda_daemon.audio.spectrogram import AudioSpectrogram, SpectrogramConfig
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.serialization import analysis_from_dict
from sda_daemon.errors import (
    BrokenModelError,
    CheckpointError,
    MisfittingWeightsError,
    ModelFileError,
    NewerModelError,
    NotAModelError,
)
from sda_daemon.files import fsync_folder, publish_new, work_folder
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.header import checked_metadata
from sda_daemon.library.removal import unlink_models
from sda_daemon.models.checkpoint import Checkpoint, activation_of, checked_weights, read_checkpoint, read_torch_file
from sda_daemon.models.digest import file_digest, weights_digest
from sda_daemon.models.metadata import (
    MODEL_FILE_EXTENSION,
    MODEL_FORMAT_MARKER,
    SAVED_MODEL_VERSION,
    ModelMetadata,
    _sanitize_filename,
    file_name_candidates,
)
from sda_daemon.models.model_file import model_payload, write_model_file
from sda_daemon.models.plain import plain_value
from sda_daemon.models.vae import STRIDE, ConvVAE, OutputActivation, WeightsLayout, build_model, weights_layout

__all__ = [
    "MODEL_FILE_EXTENSION",
    "MODEL_FORMAT_MARKER",
    "SAVED_MODEL_VERSION",
    "LoadedModel",
    "ModelMetadata",
    "_sanitize_filename",
    "delete_model",
    "load_model",
    "save_model",
    "save_model_from_checkpoint",
]


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


def save_model(
    model: ConvVAE,
    spectrogram_config: dict[str, Any],
    training_config: dict[str, Any],
    metadata: ModelMetadata,
    models_dir: Path,
    analysis: AnalysisResult | None = None,
) -> Path:
    """Save a model into a library and return its file.

    `model_id` (UUID4) and `save_date` are filled in where empty; `has_analysis` and `n_active_components`
    follow from `analysis`. Another model's file is never overwritten. Foreign values in the configs
    become plain ones or are left out.

    Raises:
        LibraryError: the index cannot be read or locked.
        OSError: a file cannot be written. A failure leaves neither file nor entry.
        ValueError: the model has never been run, or a config is unusable.

    """
    if model.decoder.fc is None:
        raise ValueError("this model has no decoder.fc yet: run it once, or load weights, before saving")
    return _save(
        _Parts(
            state_dict=model.state_dict(),
            latent_dim=model.latent_dim,
            spectrogram_config=SpectrogramConfig.from_dict(spectrogram_config),
            training_config=_plain(training_config),
            analysis=analysis,
            decoder_activation=model.output_activation,
        ),
        metadata,
        Path(models_dir),
    )


def save_model_from_checkpoint(checkpoint_path: Path, metadata: ModelMetadata, models_dir: Path) -> Path:
    """Convert a training checkpoint into a model of the library and return its file.

    Epoch, losses and analysis come from the checkpoint, whatever `metadata` says of them; `training_date` is
    the checkpoint's modification time where `metadata` has none.

    Raises:
        CheckpointError: the checkpoint cannot be converted; the subclass says why.
        LibraryError, OSError: see `save_model`.

    """
    checkpoint_path = Path(checkpoint_path)
    checkpoint = read_checkpoint(checkpoint_path)
    complete = complete_metadata(metadata, checkpoint, checkpoint_path.stat().st_mtime)
    provenance = {
        "source_file": checkpoint_path.name,
        "source_size_bytes": checkpoint_path.stat().st_size,
        "source_digest": file_digest(checkpoint_path),
        "converted_at": utc_now(),
    }
    return _save(parts_of(checkpoint), complete, Path(models_dir), provenance)


def complete_metadata(metadata: ModelMetadata, checkpoint: Checkpoint, mtime_s: float) -> ModelMetadata:
    """Return a copy of `metadata` with what the checkpoint itself knows better."""
    trained_at = datetime.fromtimestamp(mtime_s, UTC).isoformat(timespec="seconds")
    return dataclasses.replace(
        metadata,
        tags=list(metadata.tags),
        training_date=metadata.training_date or trained_at,
        training_epochs=checkpoint.epoch,
        final_train_loss=checkpoint.train_loss,
        final_val_loss=checkpoint.val_loss,
        has_analysis=checkpoint.analysis is not None,
        n_active_components=checkpoint.analysis.n_active_components if checkpoint.analysis else 0,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Parts:
    """What a model file is made of, but for its metadata."""

    state_dict: Mapping[str, Tensor]
    latent_dim: int
    spectrogram_config: SpectrogramConfig
    training_config: dict[str, Any]
    analysis: AnalysisResult | None
    decoder_activation: OutputActivation


def parts_of(checkpoint: Checkpoint) -> _Parts:
    """Return what of a checkpoint goes into a model file."""
    return _Parts(
        state_dict=checkpoint.state_dict,
        latent_dim=checkpoint.layout.latent_dim,
        spectrogram_config=checkpoint.spectrogram_config,
        training_config=checkpoint.training_config,
        analysis=checkpoint.analysis,
        decoder_activation=checkpoint.decoder_activation,
    )


def write_parts(path: Path, parts: _Parts, metadata: ModelMetadata, provenance: Mapping[str, Any]) -> int:
    """Write a model file at `path`, durably, and return its size in bytes; the index is not touched."""
    return write_model_file(
        path,
        model_payload(
            parts.state_dict,
            parts.latent_dim,
            parts.spectrogram_config.to_dict(),
            parts.training_config,
            metadata,
            parts.analysis,
            parts.decoder_activation,
            provenance,
        ),
    )


def _save(
    parts: _Parts, metadata: ModelMetadata, models_dir: Path, provenance: Mapping[str, Any] | None = None
) -> Path:
    complete = dataclasses.replace(
        metadata,
        model_id=metadata.model_id or str(uuid.uuid4()),
        save_date=metadata.save_date or utc_now(),
        tags=list(metadata.tags),
        has_analysis=parts.analysis is not None,
        n_active_components=parts.analysis.n_active_components if parts.analysis else 0,
    )
    library = ModelLibrary(models_dir)
    with work_folder(models_dir) as workspace:
        temporary = workspace / "model"
        source = {"weights_digest": weights_digest(parts.state_dict), **(provenance or {})}
        size_bytes = write_parts(temporary, parts, complete, source)
        target = publish_new(temporary, models_dir, file_name_candidates(complete.name))
        try:
            fsync_folder(models_dir)
            library.add_entry(ModelEntry.from_metadata(complete, target.name, size_bytes))
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    metadata.model_id, metadata.save_date = complete.model_id, complete.save_date
    metadata.has_analysis, metadata.n_active_components = complete.has_analysis, complete.n_active_components
    return target


def load_model(model_path: Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Load a model, ready to generate from; nothing in the file is executed.

    Args:
        model_path: a `.sda` file of this program or of the training application.
        device: where to put it, such as "cpu", "cuda" or "mps".

    Raises:
        NotAModelError: no `.sda` file (a ValueError, like all of these).
        NewerModelError: saved by a later version.
        BrokenModelError: truncated or damaged, weights missing or misfitting.
        OSError: the file cannot be read.

    """
    path = Path(model_path)
    content = _model_dict(path)
    try:
        spectrogram_config = SpectrogramConfig.from_dict(_plain(content.get("spectrogram_config") or {}))
        weights = checked_weights(content.get("model_state_dict"), path, path.stat().st_size)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        layout = weights_layout(shapes, spectrogram_config.n_mels)
        raw_analysis = content.get("latent_analysis")
        analysis = None if raw_analysis is None else analysis_from_dict(raw_analysis)
    except (ValueError, TypeError) as error:
        reason = error.what if isinstance(error, CheckpointError) else str(error)
        raise BrokenModelError(f"{path} cannot be used: {reason}") from error
    training = _plain(content.get("training_config") or {})
    activation = content.get("decoder_activation")
    if activation not in ("sigmoid", "softplus"):
        activation = activation_of(training)
    where = torch.device(device)
    model = _assemble(layout, weights, cast("OutputActivation", activation), where)
    model.mel_shape = _mel_shape(layout, spectrogram_config, training)
    metadata = checked_metadata(content["metadata"], path)
    return LoadedModel(model, AudioSpectrogram(spectrogram_config).to(where), analysis, metadata, where)


def _model_dict(path: Path) -> dict[str, Any]:
    """Read the dict of a model file and check its marker and version."""
    if not path.exists():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        content = read_torch_file(path)
    except CheckpointError as error:
        if isinstance(error, MisfittingWeightsError):  # pragma: no cover - not raised by reading alone
            raise
        is_zip = path.read_bytes()[:2] == b"PK" if path.is_file() else False
        wrong = BrokenModelError if is_zip else NotAModelError
        raise wrong(f"{path} cannot be read as a model: {error.what}", error.hint) from error
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT_MARKER:
        raise NotAModelError(
            f"{path} is not a saved model: it has no {MODEL_FORMAT_MARKER!r} marker",
            "A training checkpoint must be converted first",
        )
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise BrokenModelError(f"{path} has no usable version number, but {version!r}")
    if version > SAVED_MODEL_VERSION:
        raise NewerModelError(
            f"{path} has version {version}, newer than supported version {SAVED_MODEL_VERSION}", "Update sda-daemon"
        )
    if not isinstance(content.get("metadata"), dict):
        raise BrokenModelError(f"{path} has no metadata")
    return content


def _assemble(
    layout: WeightsLayout, weights: Mapping[str, Tensor], activation: OutputActivation, device: torch.device
) -> ConvVAE:
    """Build the model around its weights: no random initialization that would be overwritten at once."""
    with torch.device("meta"):
        model = build_model(layout, activation)
    # Copies: the weights are mapped from a file that may be replaced while the model is in use.
    copies = {
        name: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in weights.items()
    }
    model.load_state_dict(copies, assign=True)
    model.requires_grad_(True)
    return model.eval()


def _mel_shape(layout: WeightsLayout, config: SpectrogramConfig, training: Mapping[str, Any]) -> tuple[int, int]:
    """Return (n_mels, frames) of the training's chunks; without their duration, as many frames as there can be."""
    most = layout.columns * STRIDE
    duration_s = training.get("chunk_duration_s", 1.0)
    if isinstance(duration_s, int | float) and duration_s > 0:
        frames = int(duration_s * config.sample_rate) // config.hop_length + 1
        if most - STRIDE < frames <= most:
            return config.n_mels, frames
    return config.n_mels, most


def delete_model(model_id: str, models_dir: Path) -> bool:
    """Delete a model: its entry first, then its file; False if the id is unknown.

    Only ever a regular `.sda` file directly inside the folder is deleted, whatever the index says.

    Raises:
        LibraryError: the index cannot be read or locked.
        OSError: the index cannot be written, or the file not be deleted.

    """
    models_dir = Path(models_dir)
    if not (models_dir / "").is_dir():
        return False
    library = ModelLibrary(models_dir)
    with library.transaction():
        entry = library.get(model_id)
        if entry is None:
            return False
        library.remove(model_id)
    unlink_models(models_dir, [entry.file_path])
    return True


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelFileError(f"a config must be a dict, not {type(value).__name__}")
    plain = plain_value(_enums_to_values(dict(value)), lambda _where, _what: None)
    assert isinstance(plain, dict)
    return plain


def _enums_to_values(value: dict[str, Any]) -> dict[str, Any]:
    """Replace enum members (of a live training application) by their values, one level of dicts at a time."""
    return {
        key: _enums_to_values(item) if isinstance(item, dict) else getattr(item, "value", item)
        for key, item in value.items()
    }
