"""Save, load, delete and convert models: the API that the training application and scripts call."""

from __future__ import annotations

from sda_daemon.library.saving import (
    complete_metadata,
    delete_model,
    parts_of,
    save_model,
    save_model_from_checkpoint,
    utc_now,
    write_parts,
)
from sda_daemon.models.loading import LoadedModel, load_model
from sda_daemon.models.metadata import (
    MODEL_FILE_EXTENSION,
    MODEL_FORMAT_MARKER,
    SAVED_MODEL_VERSION,
    ModelMetadata,
    _sanitize_filename,
)

__all__ = [
    "MODEL_FILE_EXTENSION",
    "MODEL_FORMAT_MARKER",
    "SAVED_MODEL_VERSION",
    "LoadedModel",
    "ModelMetadata",
    "_sanitize_filename",
    "complete_metadata",
    "delete_model",
    "load_model",
    "parts_of",
    "save_model",
    "save_model_from_checkpoint",
    "utc_now",
    "write_parts",
]
