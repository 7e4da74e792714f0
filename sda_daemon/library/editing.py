"""Changes what a model is called and how it is described, and nothing else of its file.

The weights are copied bit for bit, their checksums compared on the way; torch is not needed. File first,
then index: a crash between the two leaves a file that the next repair reads again.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from sda_daemon.access import take_access
from sda_daemon.errors import ModelExistsError, ModelFileError, UneditableModelError, UnknownModelError
from sda_daemon.files import fsync_folder, work_folder
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.naming import holder_of
from sda_daemon.library.said import said_by
from sda_daemon.library.touched import words_digest
from sda_daemon.library.transfer import model_path
from sda_daemon.models.header import (
    WISHES,
    dict_of,
    metadata_of,
    model_error,
    raising_what_it_says,
    read_model_header,
    readable_fields,
)
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.torchfile.archive import (
    LOCAL_HEADER_BYTES,
    PICKLE_NAME,
    Part,
    TorchArchive,
    open_regular,
    read_chunks,
    read_part,
)
from sda_daemon.torchfile.comparison import is_same
from sda_daemon.torchfile.faults import Fault
from sda_daemon.torchfile.pickles import walk_pickle
from sda_daemon.torchfile.plain import plain_value
from sda_daemon.torchfile.reader import TorchContents, read_contents
from sda_daemon.torchfile.splice import encode_value, replace_value
from sda_daemon.torchfile.unpickler import InertUnpickler
from sda_daemon.torchfile.values import fields_of, mapping_of
from sda_daemon.wording import LONGEST_QUOTE, clean, quoted

_ALIGNMENT = 64
"""torch begins every tensor at such an offset, so that files can be mapped."""
_PADDING_ID = b"FB"


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
        return {**values, "tags": kept + added} if self.tags or self.untags else values


def edit_model(library: ModelLibrary, model_id: str, change: MetadataChange) -> ModelEntry:
    """Rewrite a model's metadata, in its file and in the index; return the new entry.

    The file keeps its name, and the model its id; every field that is not to change stays as it is, in the file and in
    the index, which may say something else.

    Raises:
        UnknownModelError: no such model, or its file is gone.
        ModelExistsError: another model has the new name.
        UneditableModelError: its file is written in a way that cannot be edited safely, or no file can hold the change.
        BrokenModelError: its file is damaged.
        LibraryError, OSError: the library is busy, or something cannot be written; nothing has changed.
    """
    with library.transaction():
        entry = library.get(model_id)
        if entry is None:
            raise UnknownModelError(f"there is no model {model_id!r} any more", "See: sda-daemon models list")
        path = model_path(library.models_dir, entry)
        changed = change.apply(entry)
        _check_name(library, entry, changed.get("name", entry.name))
        for name in changed.keys() - readable_fields(changed).keys():
            raise UneditableModelError(
                f"no model file can hold {name} = {quoted(changed[name])}", "Nothing was changed"
            )
        with work_folder(library.models_dir) as workspace:
            temporary = workspace / "model"
            size_bytes = write_edited(path, temporary, changed)
            take_access(temporary, path)
            said = said_by(read_model_header(temporary).metadata)
            library.know(entry, lambda: said_by(read_model_header(path).metadata))  # for whoever finds it half done
            temporary.replace(path)
        fsync_folder(library.models_dir)
        fresh = replace(entry, **{**changed, "tags": list(changed.get("tags", entry.tags))}, file_size_bytes=size_bytes)
        library.add_entry(fresh, said=said)
    return fresh


def _check_name(library: ModelLibrary, entry: ModelEntry, name: str) -> None:
    """Refuse a new name that only case or spaces tell from another model's: the application finds models by name.

    Raises:
        ModelExistsError: there is such a model.
    """
    if name == entry.name:
        return
    other = holder_of(name, library.entries(), entry.model_id)
    if other is not None:
        raise ModelExistsError(
            f"there is another model called {quoted(other.name)} ({clean(other.file_path, LONGEST_QUOTE)})",
            "The training application finds models by name: choose another one",
        )


def write_edited(source: Path, target: Path, fields: Mapping[str, Any]) -> int:
    """Write a copy of a model file in which some fields of the metadata are others, durably; return its size in bytes.

    Args:
        source: the model file.
        target: a file that is not there yet.
        fields: plain values by the names of the fields to change; all others stay as they are.

    Raises:
        UneditableModelError, BrokenModelError, OSError: see `edit_model`; nothing is left at `target`.
    """
    return _write(source, target, lambda payload: {"metadata": _changed_metadata(payload, fields, source)})


def write_called(source: Path, target: Path, metadata: ModelMetadata) -> int:
    """Write a copy of a new model's file with other metadata, as if it had been made with it; return its size in bytes.

    Args:
        source: the model file.
        target: a file that is not there yet.
        metadata: all of it.

    Raises:
        UneditableModelError, BrokenModelError, OSError: see `edit_model`; nothing is left at `target`.
    """

    def changes(payload: Mapping[str, Any]) -> dict[str, Any]:
        provenance = plain_value(fields_of(payload.get("provenance")), lambda _where, _what: None) or {}
        return {
            "metadata": _changed_metadata(payload, metadata.to_dict(), source),
            "provenance": {**provenance, "words_digest": words_digest(metadata)},
        }

    return _write(source, target, changes)


def write_with_analysis(source: Path, target: Path, analysis: Mapping[str, Any]) -> int:
    """Write a copy of a model file that has a latent analysis, durably; return its size in bytes.

    Of its metadata only what tells of the analysis changes.

    Args:
        source: the model file.
        target: a file that is not there yet.
        analysis: the analysis as a dict, its arrays as numpy's.

    Raises:
        UneditableModelError, BrokenModelError, OSError: see `edit_model`; nothing is left at `target`.
    """
    fields = {"has_analysis": True, "n_active_components": int(analysis["n_active_components"])}

    def changes(payload: Mapping[str, Any]) -> dict[str, Any]:
        return {"latent_analysis": dict(analysis), "metadata": _changed_metadata(payload, fields, source)}

    return _write(source, target, changes)


def _changed_metadata(payload: Mapping[str, Any], fields: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Return a model's metadata with other values in some fields.

    Raises:
        UneditableModelError: something of it would be lost.
        ModelFileError: it is no model's.
    """
    metadata_of(payload, source)
    lost: list[str] = []
    raw = fields_of(payload["metadata"]) or {}
    old = plain_value(raw, lambda where, what: lost.append(f"{where or 'a key'} ({what})"))
    if lost or not all(isinstance(key, str) for key in raw):
        unkept = lost[0] if lost else "a key that is no text"
        raise UneditableModelError(
            f"{source} cannot be edited: its metadata has something that would be lost: {unkept}", "Nothing was changed"
        )
    return {**old, **fields}


def write_changed(source: Path, target: Path, changes: Mapping[str, Any]) -> int:
    """Write a copy of a model file with other values under some keys, durably; return its size in bytes.

    Every other byte of what the file holds is as it was; that is compared, by the reader that everyone uses.

    Args:
        source: the model file.
        target: a file that is not there yet.
        changes: values by key, plain or with numpy's arrays of numbers.

    Raises:
        UneditableModelError, BrokenModelError, OSError: see `edit_model`; nothing is left at `target`.
    """
    return _write(source, target, lambda _payload: changes)


def _write(source: Path, target: Path, changes_of: Callable[[dict[str, Any]], Mapping[str, Any]]) -> int:
    """Do what `write_changed` does, with changes that are made of what the file holds."""
    try:
        with open(open_regular(source, os.O_NOFOLLOW), "rb") as old_file, target.open("xb") as new_file:  # noqa: PTH123
            os.fchmod(new_file.fileno(), stat.S_IMODE(os.fstat(old_file.fileno()).st_mode))
            before = read_contents(old_file, os.fstat(old_file.fileno()).st_size, WISHES)
            if before.archive is None:
                raise ValueError("it is in torch's old format")
            with raising_what_it_says(source):
                changes = changes_of(dict_of(before, source))
            _rewrite(old_file, before.archive, new_file, changes)
            new_file.flush()
            os.fsync(new_file.fileno())
        after = _check_only_changed(before, target, changes)
        with raising_what_it_says(target):
            metadata_of(after, target)  # also what was asked for may be more than a file can hold
        return target.stat().st_size
    except Fault as fault:
        target.unlink(missing_ok=True)
        raise model_error(fault, source) from fault
    except ModelFileError:
        target.unlink(missing_ok=True)
        raise
    except ValueError as error:
        target.unlink(missing_ok=True)
        reason = str(error).replace(f"{target} ", "it ", 1)
        raise UneditableModelError(f"{source} cannot be edited: {reason}", "Nothing was changed") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _rewrite(old_file: BinaryIO, archive: TorchArchive, new_file: IO[bytes], changes: Mapping[str, Any]) -> None:
    """Copy all parts in their order, and compare their checksums on the way."""
    pickle = archive.parts[PICKLE_NAME]
    with zipfile.ZipFile(new_file, "w", zipfile.ZIP_STORED) as new:
        for part in archive.listed:
            entry = _AlignedPart(part, new_file.tell())
            if part is pickle:
                pickled = read_part(old_file, part)
                for key, value in changes.items():
                    pickled = replace_value(pickled, key, value)
                new.writestr(entry, pickled)
                continue
            with new.open(entry, "w") as writer:
                for chunk in read_chunks(old_file, part):
                    writer.write(chunk)


class _AlignedPart(zipfile.ZipInfo):
    """The entry of a part in a new archive, whose content begins at an aligned offset.

    Args:
        part: what it is in the old archive.
        offset: where the entry begins in the new one, in bytes.
    """

    def __init__(self, part: Part, offset: int) -> None:
        super().__init__(part.path)
        self.extra = _padding(offset, part.path)
        self.file_size = part.size_bytes


def _padding(offset: int, name: str) -> bytes:
    """Return an extra field after which a part's content begins at an aligned offset."""
    begin = offset + LOCAL_HEADER_BYTES + len(name.encode()) + 4
    count = -begin % _ALIGNMENT
    return _PADDING_ID + struct.pack("<H", count) + b"Z" * count


def _check_only_changed(before: TorchContents, target: Path, changes: Mapping[str, Any]) -> dict[Any, Any]:
    """Make sure that nothing but what was to change is different: parts by size and checksum, values one by one.

    Returns what the copy holds.

    Raises:
        ValueError: something is.
    """
    with target.open("rb") as file:
        after = read_contents(file, os.fstat(file.fileno()).st_size, WISHES)
    assert before.archive is not None
    assert after.archive is not None
    if _weights_of(before.archive) != _weights_of(after.archive):
        raise ValueError("the copy of its weights came out different")
    old, new = mapping_of(before.content) or {}, mapping_of(after.content) or {}
    same_keys = list(old) == list(new)
    if not same_keys or not all(is_same(old[key], new[key]) for key in old if key not in changes):
        raise ValueError("something else than what was to change came out different")
    for key, value in changes.items():
        if not is_same(new[key], _as_read(value)):
            raise ValueError(f"{key} came out different")
    return new


def _as_read(value: Any) -> Any:
    """Return a value as the reader gives it: arrays as stand-ins that hold their type, shape and bytes."""
    walk = walk_pickle(b"\x80\x02" + encode_value(value, 0) + b".")
    return InertUnpickler(walk).load()


def _weights_of(archive: TorchArchive) -> list[tuple[str, int, int]]:
    return [(part.path, part.size_bytes, part.crc) for part in archive.listed if part is not archive.parts[PICKLE_NAME]]
