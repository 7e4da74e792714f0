"""Tiny model files without weights: all that the library ever looks at."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

from sda_daemon.library import ModelEntry
from sda_daemon.models.formats import SDA, format_of_name
from sda_daemon.models.metadata import ModelMetadata


def write_model(path: Path, model_id: str = "", name: str = "", **facts: Any) -> ModelEntry:
    """Write a model file in one step, as a rename does; return the entry that fits it."""
    metadata = ModelMetadata(model_id=model_id or f"id-of-{path.stem}", name=name or path.stem, **facts)
    marker = (format_of_name(path.name) or SDA).marker
    return write_payload(path, {"format": marker, "version": 1, "metadata": metadata.to_dict()}, metadata)


def write_payload(path: Path, payload: Any, metadata: ModelMetadata | None = None) -> ModelEntry:
    """Write any payload as a torch-like file; return an entry with this metadata."""
    temporary = path.with_name(f".{path.name}.writing")
    with zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(payload, protocol=2))
        archive.writestr("model/version", "3\n")
    os.replace(temporary, path)
    return ModelEntry.from_metadata(metadata or ModelMetadata(), path.name, path.stat().st_size)


def entry(number: int = 0, **facts: Any) -> ModelEntry:
    """An entry without a file."""
    metadata = ModelMetadata(**{"model_id": f"id{number:05}", "name": f"Model {number}", **facts})
    return ModelEntry.from_metadata(metadata, f"model_{number:05}.sda", 1000 + number)
