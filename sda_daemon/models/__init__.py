"""Models: save, load, delete and convert. Names are exported lazily, because most of them need torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sda_daemon.models.metadata import (
    MODEL_FILE_EXTENSION,
    MODEL_FORMAT_MARKER,
    SAVED_MODEL_VERSION,
    ModelMetadata,
)

if TYPE_CHECKING:
    from sda_daemon.models.persistence import (
        LoadedModel,
        delete_model,
        load_model,
        save_model,
        save_model_from_checkpoint,
    )
    from sda_daemon.models.vae import ConvVAE

__all__ = [
    "MODEL_FILE_EXTENSION",
    "MODEL_FORMAT_MARKER",
    "SAVED_MODEL_VERSION",
    "ConvVAE",
    "LoadedModel",
    "ModelMetadata",
    "delete_model",
    "load_model",
    "save_model",
    "save_model_from_checkpoint",
]

_LAZY = {
    "ConvVAE": "sda_daemon.models.vae",
    "LoadedModel": "sda_daemon.models.persistence",
    "delete_model": "sda_daemon.models.persistence",
    "load_model": "sda_daemon.models.persistence",
    "save_model": "sda_daemon.models.persistence",
    "save_model_from_checkpoint": "sda_daemon.models.persistence",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
