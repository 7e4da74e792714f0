"""Saves models into a library and deletes them from it: file first, then index; on deleting the other way round."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor

from sda_daemon.access import take_access
from sda_daemon.audio.spectrogram import SpectrogramConfig
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.errors import CheckpointError, MisfittingWeightsError, ModelFileError, NonFiniteWeightsError
from sda_daemon.files import fsync_folder, fsync_large, publish_new, sweep_work_folders, work_folder
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.removal import unlink_models
from sda_daemon.library.repair import copy_id
from sda_daemon.library.scan import scan_models
from sda_daemon.models.checkpoint import Checkpoint, checked_weights, read_checkpoint
from sda_daemon.models.digest import weights_digest
from sda_daemon.models.header import readable_fields
from sda_daemon.models.metadata import METADATA_FIELDS, MODEL_FORMAT_MARKER, ModelMetadata, file_name_candidates
from sda_daemon.models.model_file import model_payload, write_model_file
from sda_daemon.models.provenance import Provenance
from sda_daemon.models.vae import ConvVAE, OutputActivation, weights_layout
from sda_daemon.torchfile.plain import plain_value
from sda_daemon.wording import quoted

_FILLED_IN = ("model_id", "save_date", "has_analysis", "n_active_components")
"""What `save_model` fills in, also in the metadata that it was given."""


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
    follow from `analysis`. No other file is ever overwritten: a file whose `model_id` is saved again stays,
    under an id of its own. Foreign values in the configs become plain ones or are left out.

    Raises:
        LibraryError: the index cannot be read or locked.
        OSError: a file cannot be written. A failure leaves neither file nor entry.
        ValueError: the model has never been run, its weights are not finite or do not fit the config, or a
            config or the metadata is unusable: what could not be loaded again is not saved.
    """
    if model.decoder.fc is None:
        raise ValueError("this model has no decoder.fc yet: run it once, or load weights, before saving")
    config = SpectrogramConfig.from_dict(_plain(spectrogram_config))
    state = model.state_dict()
    _check_loadable(state, config)
    training = _plain(training_config)
    parts = _Parts(state, model.latent_dim, config, training, analysis, model.output_activation)
    path, saved = _save(parts, metadata, Path(models_dir))
    metadata.take(saved, _FILLED_IN)
    return path


def _check_loadable(state: Mapping[str, Tensor], config: SpectrogramConfig) -> None:
    try:
        checked_weights(dict(state), Path("the model"), sum(t.numel() * t.element_size() for t in state.values()))
        weights_layout({name: tuple(tensor.shape) for name, tensor in state.items()}, config.n_mels)
    except NonFiniteWeightsError as error:
        raise NonFiniteWeightsError(f"it cannot be saved: {error.what}", error.hint) from error
    except ValueError as error:
        reason = error.what if isinstance(error, CheckpointError) else str(error)
        raise MisfittingWeightsError(f"the model cannot be saved with this spectrogram_config: {reason}") from error


def save_model_from_checkpoint(checkpoint_path: Path, metadata: ModelMetadata, models_dir: Path) -> Path:
    """Convert a training checkpoint into a model of the library and return its file.

    Epoch, losses and analysis come from the checkpoint, whatever `metadata` says of them; `training_date` is
    the checkpoint's modification time where `metadata` has none. Afterwards `metadata` says what was saved.

    Raises:
        CheckpointError: the checkpoint cannot be converted; the subclass says why.
        LibraryError, OSError: see `save_model`.
    """
    checkpoint_path = Path(checkpoint_path)
    checkpoint = read_checkpoint(checkpoint_path)
    status = checkpoint_path.stat()
    complete = complete_metadata(metadata, checkpoint, status.st_mtime)
    provenance = Provenance(
        source_file=checkpoint_path.name,
        source_size_bytes=status.st_size,
        source_digest=checkpoint.source_digest,
        converted_at=utc_now(),
    )
    path, saved = _save(parts_of(checkpoint), complete, Path(models_dir), provenance)
    metadata.take(saved, METADATA_FIELDS)
    return path


def complete_metadata(metadata: ModelMetadata, checkpoint: Checkpoint, mtime_s: float) -> ModelMetadata:
    """Return a copy of `metadata` with what the checkpoint itself knows better."""
    try:
        trained_at = datetime.fromtimestamp(mtime_s, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a file system may hold dates that no calendar has
        trained_at = ""
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


def write_parts(
    path: Path,
    parts: _Parts,
    metadata: ModelMetadata,
    provenance: Provenance,
    marker: str = MODEL_FORMAT_MARKER,
    further: Mapping[str, Any] | None = None,
) -> int:
    """Write a model file at `path` and return its size in bytes; see `write_model_file`. The index is not touched.

    Args:
        path: where it goes.
        parts: what it is made of.
        metadata: what is said of it.
        provenance: where it comes from.
        marker: of its format.
        further: what other programs have put into the file that this one takes the place of, by key.
    """
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
            provenance.to_dict(),
            marker,
            further,
        ),
    )


def _save(
    parts: _Parts, metadata: ModelMetadata, models_dir: Path, provenance: Provenance | None = None
) -> tuple[Path, ModelMetadata]:
    """Save a model; return its file, and what of the metadata is in it."""
    complete = dataclasses.replace(
        metadata,
        model_id=metadata.model_id or str(uuid.uuid4()),
        save_date=metadata.save_date or utc_now(),
        tags=list(metadata.tags),
        has_analysis=parts.analysis is not None,
        n_active_components=parts.analysis.n_active_components if parts.analysis else 0,
    )
    values = {name: value for name, value in complete.to_dict().items() if value is not None}
    for name in values.keys() - readable_fields(values).keys():
        raise ValueError(f"no model file can hold {name} = {quoted(values[name])}")
    library = ModelLibrary(models_dir)
    sweep_work_folders(models_dir)
    with work_folder(models_dir) as workspace:
        temporary = workspace / "model"
        source = dataclasses.replace(provenance or Provenance(), weights_digest=weights_digest(parts.state_dict))
        size_bytes = write_parts(temporary, parts, complete, source)
        take_access(temporary, models_dir / temporary.name)
        fsync_large(temporary)
        target = _publish(library, temporary, complete, size_bytes)
    return target, complete


def _publish(library: ModelLibrary, temporary: Path, metadata: ModelMetadata, size_bytes: int) -> Path:
    """Give a finished file its name and its entry; on failure neither is left."""
    target: Path | None = None
    try:
        with library.transaction():
            names = file_name_candidates(metadata.name, model_id=metadata.model_id)
            target = publish_new(temporary, library.models_dir, names)
            fsync_folder(library.models_dir)
            before = library.get(metadata.model_id)
            if before is not None and before.file_path in scan_models(library.models_dir):
                library.add_entry(
                    dataclasses.replace(before, model_id=copy_id(before.model_id, before.file_path)), said=""
                )
            library.add_entry(ModelEntry.from_metadata(metadata, target.name, size_bytes))
    except BaseException:
        if target is not None:
            target.unlink(missing_ok=True)
        raise
    return target


def delete_model(model_id: str, models_dir: Path) -> bool:
    """Delete a model: its entry first, then its file; False if the id is unknown.

    Only ever a regular model file directly inside the folder is deleted, whatever the index says, and only
    if no other entry has the same file. Of an entry that points out of the folder only the entry goes; one that is of
    something else than a model of this library stays.

    Raises:
        LibraryError: the index cannot be read or locked.
        OSError: the index cannot be written, or the file not be deleted.
    """
    models_dir = Path(models_dir)
    if not models_dir.is_dir():
        return False
    library = ModelLibrary(models_dir)
    with library.transaction():
        entry = library.get(model_id)
        if entry is None:
            return library.remove_outside(model_id)
        library.remove(model_id)
        is_shared = any(other.file_path == entry.file_path for other in library.list_all())
    if not is_shared and unlink_models(models_dir, [entry.file_path]):
        fsync_folder(models_dir)
    return True


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelFileError(f"a config must be a dict, not {type(value).__name__}")
    plain = plain_value(_without_enums(dict(value)), lambda _where, _what: None)
    assert isinstance(plain, dict)
    return plain


def _without_enums(value: Any) -> Any:
    """Replace enum members (of a live training application) by their values, and paths by their text."""
    if isinstance(value, dict):
        return {key: _without_enums(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_enums(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
