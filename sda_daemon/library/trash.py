"""The trash of a library: a hidden folder beside the models, from which they can be restored.

Deleting goes index first, then file: a crash between the two leaves a file that the next repair adopts.
Restoring goes file first, then index. Each file in the trash has a note beside it that tells what its
entry was.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from sda_daemon.access import make_shared_folder, take_access
from sda_daemon.errors import LibraryError, ModelExistsError, ModelFileError
from sda_daemon.files import (
    TRASH_FOLDER,
    fsync_folder,
    is_folder,
    publish_new,
    says_gone,
    work_folder,
)
from sda_daemon.library.batches import Batch, title
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.content import Fields
from sda_daemon.library.editing import write_edited
from sda_daemon.library.entry import ModelEntry, check_entry, is_bare_model_name
from sda_daemon.library.naming import name_apart
from sda_daemon.library.removal import unlink_models
from sda_daemon.library.restored import remember_restored
from sda_daemon.library.trash_notes import TrashedModel, note_of, read_note, write_note
from sda_daemon.models.formats import SDA, format_of_name, has_model_ending
from sda_daemon.models.header import read_model_header
from sda_daemon.models.metadata import file_name_candidates
from sda_daemon.wording import LONGEST_QUOTE, clean, quoted

__all__ = ["TRASH_FOLDER", "TrashedModel", "discard", "empty", "list_trash", "purge", "restore"]


def discard(library: ModelLibrary, entries: Sequence[ModelEntry]) -> list[TrashedModel]:
    """Move models into the trash; those whose file is gone, or is another entry's, too, only leave the index.

    Raises:
        SomeFailedError: not all could be moved; the others were, and these are in the library as before.
        LibraryError, OSError: the library is busy, or something cannot be written; nothing has changed.
    """
    with library.locked():  # no repair may see what has left the index and not the folder
        return _discard(library, entries)


def _discard(library: ModelLibrary, entries: Sequence[ModelEntry]) -> list[TrashedModel]:
    folder = _trash_of(library.models_dir)
    stamp = datetime.now(UTC)
    make_shared_folder(folder)
    shared = _files_of_others(library, entries)
    batch: Batch[TrashedModel] = Batch("moved to the trash")
    leaving: list[tuple[ModelEntry, TrashedModel | None]] = []
    for entry in entries:
        with batch.each(title(entry)):
            is_ours = _is_ours(library.models_dir, entry.file_path) and entry.file_path not in shared
            fields = library.fields_of(entry.model_id)
            leaving.append((entry, write_note(folder, entry, fields, stamp) if is_ours else None))
    try:
        library.remove_many(entry.model_id for entry, _ in leaving)
    except BaseException:
        for _, item in leaving:
            if item is not None:
                note_of(item.path).unlink(missing_ok=True)
        raise
    staying: list[tuple[ModelEntry, Fields]] = []
    for entry, item in leaving:
        if item is None:
            continue
        with batch.each(title(entry)):
            try:
                (library.models_dir / entry.file_path).rename(item.path)
            except OSError as error:
                note_of(item.path).unlink(missing_ok=True)
                if isinstance(error, FileNotFoundError):
                    continue  # it has just gone
                staying.append((entry, item.fields))
                raise
            batch.done.append(item)
    _take_back(library, staying)
    fsync_folder(folder)
    fsync_folder(library.models_dir)
    return batch.result()


def _files_of_others(library: ModelLibrary, entries: Iterable[ModelEntry]) -> set[str]:
    """Return the files that other entries than these have: they stay."""
    leaving = {entry.model_id for entry in entries}
    return {entry.file_path for entry in library.entries() if entry.model_id not in leaving}


def _take_back(library: ModelLibrary, staying: Sequence[tuple[ModelEntry, Fields]]) -> None:
    """Put models whose file does not let itself be moved or deleted into the index again, with all they had there."""
    if not staying:
        return
    with library.transaction():
        for entry, fields in staying:
            library.add_entry(entry, said="")
            library.set_fields(entry.model_id, fields)


def purge(library: ModelLibrary, entries: Sequence[ModelEntry]) -> int:
    """Delete models for good; return how many files there were.

    Raises:
        SomeFailedError, LibraryError, OSError: see `discard`.
    """
    leaving = [(entry, library.fields_of(entry.model_id)) for entry in entries]
    shared = _files_of_others(library, entries)
    library.remove_many(entry.model_id for entry in entries)
    batch: Batch[int] = Batch("deleted")
    staying: list[tuple[ModelEntry, Fields]] = []
    for entry, fields in leaving:
        with batch.each(title(entry)):
            try:
                files = [entry.file_path] if entry.file_path not in shared else []
                batch.done.append(unlink_models(library.models_dir, files))
            except OSError:
                staying.append((entry, fields))
                raise
    _take_back(library, staying)
    return sum(batch.result())


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
        item = _what_it_was(path) if _is_regular(path) else None
        if item is not None:
            found.append(item)
    return sorted(found, key=lambda item: (item.deleted_at, item.path.name), reverse=True)


def restore(library: ModelLibrary, items: Sequence[TrashedModel]) -> list[ModelEntry]:
    """Put models back, under their old file names where these are still free.

    One whose name another model has by now gets a name that tells the two apart, if this program has made its file.

    Raises:
        ModelExistsError: the library has the model again.
        SomeFailedError: not all could be restored; the others were, and these are in the trash as before.
        LibraryError, OSError: the library is busy, or something cannot be written; nothing has changed.
    """
    batch: Batch[ModelEntry] = Batch("restored")
    moved: list[tuple[TrashedModel, Path]] = []
    try:
        with library.transaction():
            for item in items:
                with batch.each(title(item.entry)):
                    entry = _put_back(library, item)
                    moved.append((item, library.models_dir / entry.file_path))
                    batch.done.append(entry)
            fsync_folder(library.models_dir)
    except BaseException:
        for item, path in reversed(moved):
            with contextlib.suppress(OSError):
                if os.path.lexists(item.path):
                    path.unlink()  # a copy
                else:
                    path.rename(item.path)
        raise
    for item, _ in moved:
        with contextlib.suppress(OSError):  # without its file it is passed over
            item.path.unlink(missing_ok=True)
            note_of(item.path).unlink()
    with contextlib.suppress(OSError):  # they are back all the same
        remember_restored(library.models_dir, (entry.model_id for entry in batch.done))
    return batch.result()


def _put_back(library: ModelLibrary, item: TrashedModel) -> ModelEntry:
    """Give a model its file and its entry again, with all that other programs had put into it; see `restore`."""
    entry = item.entry
    known = library.get(entry.model_id)
    if known is not None:
        raise ModelExistsError(
            f"the library has the model {quoted(title(entry))} again ({clean(known.file_path, LONGEST_QUOTE)})",
            "Delete one of the two for good: sda-daemon models trash --empty, or models delete --purge",
        )
    check_entry(entry)
    library.check_free(entry.model_id)
    names = chain([entry.file_path], file_name_candidates(entry.name, _ending_of(item.path), entry.model_id))
    restored = _placed(library, item, names)
    library.add_entry(restored, said="")  # a person may have changed the index alone
    library.set_fields(restored.model_id, item.fields)
    return restored


def _placed(library: ModelLibrary, item: TrashedModel, names: Iterator[str]) -> ModelEntry:
    """Bring a model's file into the library; return its entry, with another name if the model's own is taken."""
    entry = item.entry
    name = name_apart(entry.metadata(), library.entries()) if entry.name else entry.name
    if name != entry.name:
        with work_folder(library.models_dir) as workspace:
            temporary = workspace / "model"
            if size_bytes := _rename(item.path, temporary, name):
                path = publish_new(temporary, library.models_dir, names)
                return replace(entry, name=name, file_path=path.name, file_size_bytes=size_bytes)
    return replace(entry, file_path=publish_new(item.path, library.models_dir, names).name)


def _rename(path: Path, target: Path, name: str) -> int:
    """Write a copy of a model's file in which it has another name, and return its size in bytes.

    0, and there is none, if another program has made the file, or it cannot be edited: it is kept as it is.
    """
    try:
        if not read_model_header(path).provenance:
            return 0
        size_bytes = write_edited(path, target, {"name": name})
    except ModelFileError:
        return 0
    take_access(target, path)
    return size_bytes


def empty(models_dir: Path, items: Iterable[TrashedModel]) -> int:
    """Delete models in the trash for good; return how many.

    Raises:
        SomeFailedError: not all could be deleted; the others are.
        OSError: the only one cannot be deleted.
    """
    batch: Batch[TrashedModel] = Batch("deleted")
    for item in items:
        with batch.each(title(item.entry)):
            item.path.unlink(missing_ok=True)
            note_of(item.path).unlink(missing_ok=True)
            batch.done.append(item)
    with contextlib.suppress(OSError):  # not empty: someone keeps something else in it
        (models_dir / TRASH_FOLDER).rmdir()
    return len(batch.result())


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
    except OSError as error:
        if not says_gone(error):
            raise
        return False


def _ending_of(path: Path) -> str:
    return (format_of_name(path.name) or SDA).ending


def _what_it_was(path: Path) -> TrashedModel | None:
    """Return what the note says; without one, what the file itself says."""
    if (noted := read_note(path)) is not None:
        return noted
    try:
        header = read_model_header(path)
    except (ModelFileError, OSError):
        return None
    entry = ModelEntry.from_metadata(header.metadata, path.name, header.size_bytes)
    return TrashedModel(entry, path, _moment(header.mtime_ns))


def _moment(time_ns: int) -> str:
    """Return a file's time as ISO 8601; empty for one that no calendar has."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""
