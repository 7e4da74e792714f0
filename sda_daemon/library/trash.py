"""The trash of a library: a hidden folder beside the models, from which they can be restored.

Deleting goes index first, then file: a crash between the two leaves a file that the next repair adopts.
Restoring goes file first, then index. Each file in the trash has a note beside it that tells what its
entry was.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from sda_daemon.errors import LibraryError, ModelExistsError, ModelFileError
from sda_daemon.files import fsync_folder, is_folder, make_shared_folder, publish_new, write_atomic
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.content import Fields, checked_fields
from sda_daemon.library.entry import ModelEntry, entry_from_dict, is_bare_model_name
from sda_daemon.library.removal import unlink_models
from sda_daemon.library.restored import remember_restored
from sda_daemon.models.formats import SDA, format_of_name, has_model_ending, without_ending
from sda_daemon.models.header import read_model_header
from sda_daemon.models.metadata import file_name_candidates
from sda_daemon.settings import own_output

TRASH_FOLDER = own_output.TRASH_FOLDER
_NOTE_ENDING = ".json"


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


def discard(library: ModelLibrary, entries: Sequence[ModelEntry]) -> list[TrashedModel]:
    """Move models into the trash; those whose file is gone already only leave the index.

    Raises:
        LibraryError, OSError: the library is busy, or something cannot be written.
    """
    folder = _trash_of(library.models_dir)
    stamp = datetime.now(UTC)
    wanted = [entry for entry in entries if _is_ours(library.models_dir, entry.file_path)]
    make_shared_folder(folder)
    trashed = [_note_down(folder, entry, library.fields_of(entry.model_id), stamp) for entry in wanted]
    try:
        library.remove_many(entry.model_id for entry in entries)
    except BaseException:
        for item in trashed:
            _note_of(item.path).unlink(missing_ok=True)
        raise
    for number, (entry, item) in enumerate(zip(wanted, trashed, strict=True)):
        try:
            with contextlib.suppress(FileNotFoundError):
                (library.models_dir / entry.file_path).rename(item.path)
        except OSError:
            _take_back(library, trashed[number:])
            raise
    fsync_folder(folder)
    fsync_folder(library.models_dir)
    return trashed


def _take_back(library: ModelLibrary, items: Sequence[TrashedModel]) -> None:
    """Undo what was done for models whose file does not let itself be moved."""
    with library.transaction():
        library.add_entries(item.entry for item in items)
        for item in items:
            library.set_fields(item.entry.model_id, item.fields)
    for item in items:
        _note_of(item.path).unlink(missing_ok=True)


def purge(library: ModelLibrary, entries: Sequence[ModelEntry]) -> int:
    """Delete models for good; return how many files there were.

    Raises:
        LibraryError, OSError: see `discard`.
    """
    library.remove_many(entry.model_id for entry in entries)
    return unlink_models(library.models_dir, [entry.file_path for entry in entries])


def list_trash(models_dir: Path) -> list[TrashedModel]:
    """Return the models in the trash, the last deleted first; unreadable files are passed over.

    Raises:
        OSError: the trash may not be looked into.
    """
    folder = models_dir / TRASH_FOLDER
    found: list[TrashedModel] = []
    if folder.is_symlink() or not is_folder(folder):
        return found
    for name in os.listdir(folder):
        if not has_model_ending(name):
            continue
        path = folder / name
        item = _read_note(path) if _is_regular(path) else None
        if item is not None:
            found.append(item)
    return sorted(found, key=lambda item: (item.deleted_at, item.path.name), reverse=True)


def restore(library: ModelLibrary, items: Sequence[TrashedModel]) -> list[ModelEntry]:
    """Put models back, under their old file names where these are still free.

    Raises:
        ModelExistsError: the library has one of these models again; nothing is restored.
        LibraryError, OSError: the library is busy, or something cannot be written; nothing is restored.
    """
    restored: list[ModelEntry] = []
    moved: list[tuple[Path, Path]] = []
    try:
        _restore(library, items, restored, moved)
    except BaseException:
        for target, source in reversed(moved):
            with contextlib.suppress(OSError):
                target.rename(source)
        raise
    for item in items:
        with contextlib.suppress(OSError):  # without its file it is passed over
            _note_of(item.path).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # they are back all the same
        remember_restored(library.models_dir, (entry.model_id for entry in restored))
    return restored


def _restore(
    library: ModelLibrary, items: Sequence[TrashedModel], restored: list[ModelEntry], moved: list[tuple[Path, Path]]
) -> None:
    with library.transaction():
        for item in items:
            known = library.get(item.entry.model_id)
            if known is not None:
                raise ModelExistsError(
                    f"the library has the model {item.entry.name!r} again ({known.file_path})",
                    "Delete one of the two for good: sda-daemon models trash --empty, or models delete --purge",
                )
        for item in items:
            names = chain([item.entry.file_path], file_name_candidates(item.entry.name, _ending_of(item.path)))
            target = publish_new(item.path, library.models_dir, names)
            moved.append((target, item.path))
            restored.append(replace(item.entry, file_path=target.name))
        fsync_folder(library.models_dir)
        library.add_entries(restored)
        for item in items:
            library.set_fields(item.entry.model_id, item.fields)


def empty(models_dir: Path, items: Iterable[TrashedModel]) -> int:
    """Delete models in the trash for good; return how many.

    Raises:
        OSError: one cannot be deleted.
    """
    removed = 0
    for item in items:
        _note_of(item.path).unlink(missing_ok=True)
        item.path.unlink(missing_ok=True)
        removed += 1
    with contextlib.suppress(OSError):  # not empty: someone keeps something else in it
        (models_dir / TRASH_FOLDER).rmdir()
    return removed


def _trash_of(models_dir: Path) -> Path:
    folder = models_dir / TRASH_FOLDER
    if folder.is_symlink():
        raise LibraryError(f"{folder} is a symbolic link, which is never followed", "Put a real folder there")
    return folder


def _is_ours(models_dir: Path, name: str) -> bool:
    """Tell whether a name is that of a regular model file directly inside the folder."""
    return is_bare_model_name(name) and _is_regular(models_dir / name)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _note_down(folder: Path, entry: ModelEntry, fields: Fields, moment: datetime) -> TrashedModel:
    """Write the note of a model that is about to come, under a name that is free."""
    name = Path(entry.file_path)
    stem = f"{without_ending(entry.file_path)}~{moment.strftime('%Y%m%dT%H%M%S')}"
    path = folder / f"{stem}{_ending_of(name)}"
    number = 0
    while path.exists() or _note_of(path).exists():
        number += 1
        path = folder / f"{stem}-{number}{_ending_of(name)}"
    item = TrashedModel(entry, path, moment.isoformat(timespec="seconds"), fields)
    note: dict[str, Any] = {"version": 1, "deleted_at": item.deleted_at, "entry": entry.to_dict()}
    if fields:
        note["fields"] = dict(fields)
    write_atomic(_note_of(path), [json.dumps(note).encode()])
    return item


def _ending_of(path: Path) -> str:
    return (format_of_name(path.name) or SDA).ending


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + _NOTE_ENDING)


def _read_note(path: Path) -> TrashedModel | None:
    """Return what the note says; without one, what the file itself says."""
    try:
        note = json.loads(_note_of(path).read_bytes())
        entry, _ = entry_from_dict(note["entry"]["model_id"], note["entry"])
        if is_bare_model_name(entry.file_path) and format_of_name(entry.file_path) is format_of_name(path.name):
            return TrashedModel(entry, path, str(note["deleted_at"]), checked_fields(note.get("fields", {}).items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    try:
        header = read_model_header(path)
    except (ModelFileError, OSError):
        return None
    moment = datetime.fromtimestamp(header.mtime_ns / 1e9, UTC).isoformat(timespec="seconds")
    return TrashedModel(ModelEntry.from_metadata(header.metadata, path.name, header.size_bytes), path, moment)
