"""The notes of the trash: what the entry of each deleted model was, in a small file beside it.

A note is written before its model leaves the index, and goes after the model is back: a crash in between leaves a note
whose model stands in the folder, and what only the index said of that is taken from it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sda_daemon.files import TRASH_FOLDER, fitting, is_folder, write_atomic
from sda_daemon.library.content import Fields, checked_fields
from sda_daemon.library.entry import ModelEntry, entry_from_dict, is_bare_model_name
from sda_daemon.models.formats import SDA, format_of_name, has_model_ending, without_ending
from sda_daemon.plain_json import read_json
from sda_daemon.small_files import read_small_file
from sda_daemon.wording import LONGEST_QUOTE, clean

_NOTE_ENDING = ".json"
_MAX_NOTE_BYTES = 64 * 2**20
"""An index may hold very long texts, and a note holds one entry of it."""


@dataclass(frozen=True, slots=True)
class TrashedModel:
    """A model in the trash: its entry as it was, its file there, and when it was deleted (ISO 8601)."""

    entry: ModelEntry
    path: Path
    deleted_at: str
    fields: Fields = ()
    """What its entry had beyond the 16 fields, as it stood in the index."""

    @property
    def size_bytes(self) -> int:
        """Size of its file."""
        return self.entry.file_size_bytes


def note_of(path: Path) -> Path:
    """Return the note of a file in the trash."""
    return path.with_name(path.name + _NOTE_ENDING)


def write_note(folder: Path, entry: ModelEntry, fields: Fields, moment: datetime) -> TrashedModel:
    """Write the note of a model that is about to come, under a name that is free.

    Raises:
        OSError: it cannot be written.
    """
    ending = (format_of_name(entry.file_path) or SDA).ending
    stem = f"{fitting(without_ending(entry.file_path))}~{moment.strftime('%Y%m%dT%H%M%S')}"
    path = folder / f"{stem}{ending}"
    number = 0
    while path.exists() or note_of(path).exists():
        number += 1
        path = folder / f"{stem}-{number}{ending}"
    item = TrashedModel(entry, path, moment.isoformat(timespec="seconds"), fields)
    note: dict[str, Any] = {"version": 1, "deleted_at": item.deleted_at, "entry": entry.to_dict()}
    if fields:
        note["fields"] = dict(fields)
    write_atomic(note_of(path), [json.dumps(note).encode()])
    return item


def read_note(path: Path) -> TrashedModel | None:
    """Return what the note of a file in the trash says; None without one that can be read."""
    try:
        note = read_json(read_small_file(note_of(path), _MAX_NOTE_BYTES))
        entry, _ = entry_from_dict(note["entry"]["model_id"], note["entry"])
        if is_bare_model_name(entry.file_path) and format_of_name(entry.file_path) is format_of_name(path.name):
            fields = checked_fields(note.get("fields", {}).items())
            return TrashedModel(entry, path, clean(note["deleted_at"], LONGEST_QUOTE), fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def abandoned_notes(models_dir: Path) -> list[TrashedModel]:
    """Return what notes tell of whose model is not in the trash: a crash has left it in the folder, or there is none.

    Empty where the trash cannot be looked into.
    """
    folder = models_dir / TRASH_FOLDER
    found: list[TrashedModel] = []
    with contextlib.suppress(OSError):
        if folder.is_symlink() or not is_folder(folder):
            return found
        names = set(os.listdir(folder))
        for name in sorted(names):
            of = name.removesuffix(_NOTE_ENDING)
            if of != name and of not in names and has_model_ending(of):
                item = read_note(folder / of)
                if item is not None:
                    found.append(item)
    return found


def drop_abandoned_notes(models_dir: Path, is_known: Callable[[str], bool]) -> None:
    """Remove the abandoned notes of models that are in the index again."""
    for item in abandoned_notes(models_dir):
        if is_known(item.entry.model_id):
            with contextlib.suppress(OSError):
                note_of(item.path).unlink()
