"""Changes what a model is called and how it is described, and nothing else of its file.

The weights are copied bit for bit, their checksums compared on the way; torch is not needed. File first,
then index: a crash between the two leaves a file that the next repair reads again.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sda_daemon.errors import BrokenModelError, UneditableModelError, UnknownModelError
from sda_daemon.files import fsync_folder, take_access, work_folder
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.transfer import model_path
from sda_daemon.models.header import dict_items, read_model_header, read_pickled_dict
from sda_daemon.models.metadata import METADATA_FIELDS
from sda_daemon.torchfile.plain import plain_value
from sda_daemon.torchfile.splice import replace_value
from sda_daemon.torchfile.values import array_values

_ALIGNMENT = 64
"""torch begins every tensor at such an offset, so that files can be mapped."""
_LOCAL_HEADER_BYTES = 30
_PADDING_ID = b"FB"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """What to change; None leaves a field as it is. Tags are added and taken away by `tags` and `untags`.

    `dataset_total_duration_s` is in seconds.
    """

    name: str | None = None
    description: str | None = None
    dataset_name: str | None = None
    dataset_file_count: int | None = None
    dataset_total_duration_s: float | None = None
    tags: tuple[str, ...] = ()
    untags: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return self == MetadataChange()

    def apply(self, entry: ModelEntry) -> dict[str, Any]:
        """Return the fields that the change gives an entry."""
        values: dict[str, Any] = {
            name: value
            for name in ("name", "description", "dataset_name", "dataset_file_count", "dataset_total_duration_s")
            if (value := getattr(self, name)) is not None
        }
        unwanted = {tag.casefold() for tag in self.untags}
        kept = [tag for tag in entry.tags if tag.casefold() not in unwanted]
        known = {tag.casefold() for tag in kept}
        added = [tag for tag in dict.fromkeys(self.tags) if tag.casefold() not in known]
        return {**values, "tags": kept + added}


def edit_model(library: ModelLibrary, model_id: str, change: MetadataChange) -> ModelEntry:
    """Rewrite a model's metadata, in its file and in the index; return the new entry.

    The file keeps its name, and the model its id.

    Raises:
        UnknownModelError: no such model, or its file is gone.
        UneditableModelError: its file is written in a way that cannot be edited safely.
        BrokenModelError: its file is damaged.
        LibraryError, OSError: the library is busy, or something cannot be written; nothing has changed.
    """
    with library.transaction():
        entry = library.get(model_id)
        if entry is None:
            raise UnknownModelError(f"there is no model {model_id!r} any more", "See: sda-daemon models list")
        path = model_path(library.models_dir, entry)
        fields = {**entry.metadata().to_dict(), **change.apply(entry)}
        with work_folder(library.models_dir) as workspace:
            temporary = workspace / "model"
            size_bytes = write_edited(path, temporary, fields)
            take_access(temporary, path)
            temporary.replace(path)
        fsync_folder(library.models_dir)
        fresh = ModelEntry.from_metadata(read_model_header(path).metadata, path.name, size_bytes)
        fresh.model_id = entry.model_id  # a copied file has its original's id inside
        library.add_entry(fresh)
    return fresh


def write_edited(source: Path, target: Path, fields: Mapping[str, Any]) -> int:
    """Write a copy of a model file with other metadata, durably; return its size in bytes.

    `model_id` and what the file itself knows better (its analysis) stay as they are in the file.

    Raises:
        UneditableModelError, BrokenModelError, OSError: see `edit_model`; nothing is left at `target`.
    """
    payload, _ = read_pickled_dict(source)
    read_model_header(source)
    old = {str(key): _plain(value) for key, value in dict_items(payload.get("metadata"))}
    kept = ("model_id", "has_analysis", "n_active_components")
    new = {**old, **{name: fields[name] for name in METADATA_FIELDS if name in fields and name not in kept}}
    try:
        with source.open("rb") as old_file, target.open("xb") as new_file:
            os.fchmod(new_file.fileno(), stat.S_IMODE(os.fstat(old_file.fileno()).st_mode))
            _rewrite(old_file, new_file, new)
            new_file.flush()
            os.fsync(new_file.fileno())
        _check_same_weights(source, target)
        return target.stat().st_size
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        target.unlink(missing_ok=True)
        raise BrokenModelError(
            f"{source} is damaged: {error}", "Restore it from a backup or convert it again"
        ) from error
    except ValueError as error:
        target.unlink(missing_ok=True)
        raise UneditableModelError(f"{source} cannot be edited: {error}", "Nothing was changed") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    number = array_values(value)
    return plain_value(value, lambda _where, _what: None) if number is None else number


def _rewrite(old_file: IO[bytes], new_file: IO[bytes], metadata: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(old_file) as old, zipfile.ZipFile(new_file, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        if len(set(names)) != len(names):
            raise ValueError("two of its parts have the same name")
        for entry in old.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it has compressed parts")
            part = zipfile.ZipInfo(entry.filename, entry.date_time)
            part.extra = _padding(new_file.tell(), entry.filename)
            if entry.filename.endswith("/data.pkl") and entry.filename.count("/") == 1:
                new.writestr(part, replace_value(old.read(entry), "metadata", metadata))
                continue
            part.file_size = entry.file_size
            with old.open(entry) as reader, new.open(part, "w") as writer:
                while chunk := reader.read(_CHUNK_BYTES):
                    writer.write(chunk)


def _padding(offset: int, name: str) -> bytes:
    """Return an extra field after which a part's content begins at an aligned offset."""
    begin = offset + _LOCAL_HEADER_BYTES + len(name.encode()) + 4
    count = -begin % _ALIGNMENT
    return _PADDING_ID + struct.pack("<H", count) + b"Z" * count


def _check_same_weights(source: Path, target: Path) -> None:
    """Make sure that every part but the metadata has the size and the checksum that it had.

    Raises:
        ValueError: one has not.
    """

    def parts(path: Path) -> list[tuple[str, int, int]]:
        with zipfile.ZipFile(path) as archive:
            return [
                (entry.filename, entry.file_size, entry.CRC)
                for entry in archive.infolist()
                if not entry.filename.endswith("/data.pkl")
            ]

    if parts(source) != parts(target):
        raise ValueError("the copy of its weights came out different")
