"""Behaves like a generation of the training application where it reads and writes the index.

It builds its entries from exactly the fields that it knows: what has others, or lacks some, it skips, and it is gone
with its next write. It writes all of its memory, indented, by `mkstemp` and a rename; the index before is copied first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from sda_daemon.library.entry import ENTRY_FIELDS
from sda_daemon.models.formats import ModelFormat
from sda_daemon.models.header import read_model_header
from sda_daemon.models.metadata import ModelMetadata

REQUIRED = frozenset(ENTRY_FIELDS) - {"tags"}


class Application:
    """One window or command of a generation.

    Attributes:
        memory: the entries as it knows them; it is what `write` writes.
    """

    def __init__(self, folder: Path, generation: ModelFormat) -> None:
        self.folder, self.generation = folder, generation
        self.index = folder / "model_library.json"
        self.memory: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Take the index into memory, without what it does not know."""
        known = {*ENTRY_FIELDS, *self.generation.entry_fields}
        try:
            models = json.loads(self.index.read_text(encoding="utf-8")).get("models", {})
        except (OSError, ValueError):
            models = {}
        self.memory = {
            model_id: self._entry(values)
            for model_id, values in models.items()
            if isinstance(values, dict) and REQUIRED <= values.keys() <= known
        }

    def _entry(self, values: dict[str, Any]) -> dict[str, Any]:
        entry = {name: values.get(name, []) for name in ENTRY_FIELDS}
        return {**entry, **{name: values.get(name) for name in self.generation.entry_fields}}

    def write(self) -> None:
        """Write the memory over the index."""
        if self.index.exists():
            with contextlib.suppress(OSError):
                shutil.copy2(self.index, self.index.with_suffix(".json.bak"))
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        with os.fdopen(descriptor, "w") as file:
            json.dump({"version": self.generation.index_version, "models": self.memory}, file, indent=2, default=str)
        os.replace(temporary, self.index)

    def add(self, name: str) -> None:
        """Add a model's file to what was read just now, as it does after a training."""
        self.read()
        header = read_model_header(self.folder / name)
        values = {**header.metadata.to_dict(), "file_path": name, "file_size_bytes": header.size_bytes}
        self.memory[header.metadata.model_id] = self._entry(values)
        self.write()

    def save(self, name: str, seed: int = 0, *, with_analysis: bool = False, model_id: str = "") -> str:
        """Save the weights of a small checkpoint's seed as it does after a training: under a random id; return that.

        The file has the application's enum in it, and nothing that this program writes into one.
        """
        from sda_daemon.demo.checkpoints import checkpoint_dict, made_up_analysis, small_model, write_checkpoint

        analysis = made_up_analysis() if with_analysis else None
        trained = checkpoint_dict(small_model(seed).state_dict(), analysis=analysis)
        kept = ("model_state_dict", "spectrogram_config", "latent_analysis", "training_config")
        metadata = ModelMetadata(
            model_id=model_id or str(uuid.uuid4()),
            name=name,
            save_date="2026-11-25T03:00:00",
            training_epochs=7,
            has_analysis=with_analysis,
            n_active_components=analysis.n_active_components if analysis else 0,
        )
        content = {
            "format": self.generation.marker,
            "version": 1,
            **{key: trained[key] for key in kept},
            "latent_dim": 8,
            "metadata": metadata.to_dict(),
        }
        file = f"{name}{self.generation.ending}"
        write_checkpoint(self.folder / file, content, sidecar=False, module=self.generation.enum_module)
        self.add(file)
        return metadata.model_id

    def remove(self, model_id: str) -> None:
        """Delete a model: its file first, then its entry."""
        self.read()
        (self.folder / self.memory[model_id]["file_path"]).unlink(missing_ok=True)
        del self.memory[model_id]
        self.write()
