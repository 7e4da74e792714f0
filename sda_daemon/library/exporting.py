"""Takes a model out of the library, also as one of another generation of the training application.

Only the marker inside the file and its ending are different then; the weights are copied bit for bit, and every key
that this program does not know goes along. torch is not needed.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from sda_daemon.access import take_access
from sda_daemon.errors import LibraryError, UnplayableModelError
from sda_daemon.files import TEMPORARY_ENDING, fsync_folder
from sda_daemon.library.editing import write_changed
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.transfer import export, free_target, model_path
from sda_daemon.models.formats import DISTILL, DISTILLGAN, SDA, ModelFormat, format_of_name, without_ending
from sda_daemon.models.header import checked_metadata, dict_items, read_model_details, read_pickled_dict
from sda_daemon.models.metadata import METADATA_FIELDS
from sda_daemon.models.playability import Trouble, activation_trouble


def export_model(
    models_dir: Path, entry: ModelEntry, to: Path, wanted: ModelFormat | None = None, *, replace: bool = False
) -> tuple[Path, list[Trouble]]:
    """Copy a model's file into a folder or to a file name, atomically, if need be in another format.

    Args:
        models_dir: the library's folder.
        entry: which model.
        to: a folder, or the new file's name.
        wanted: the format; without it, what the new file's ending says, else that of the model.
        replace: whether a file that is there may be replaced.

    Returns:
        Where it is now, and what the application that opens it will not play right.

    Raises:
        UnplayableModelError: that application would decode it with the wrong activation.
        UneditableModelError, BrokenModelError: its file cannot be rewritten.
        UnknownModelError, ModelExistsError, LibraryError, OSError: see `transfer.export`.
    """
    source = model_path(models_dir, entry)
    own, named = format_of_name(entry.file_path), None if to.is_dir() else format_of_name(to.name)
    chosen = wanted or named or own
    if named is not None and named is not chosen:
        assert chosen is not None
        raise LibraryError(
            f"{to.name} is not the name of a {chosen.name} model", f"Call it {without_ending(to.name)}{chosen.ending}"
        )
    if chosen is None or chosen is own:
        return export(models_dir, entry, to, replace=replace), []
    found = _check_playable(source, chosen)
    target = free_target(source, to, without_ending(entry.file_path) + chosen.ending, replace=replace)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}{TEMPORARY_ENDING}")
    try:
        write_changed(source, temporary, _changes(source, chosen))
        take_access(temporary, target)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    return target, found


def _check_playable(source: Path, chosen: ModelFormat) -> list[Trouble]:
    activation = read_model_details(source).decoder_activation
    trouble = activation_trouble(chosen, activation)
    if trouble is None:
        return []
    if chosen is not SDA:
        raise UnplayableModelError(
            f"{source} ends in a {activation}; the application that opens {chosen.ending} files would end it in a "
            f"{chosen.activation}",
            f"Export it as {SDA.name}",
        )
    return [Trouble(trouble.reason, f"Its own generation opens it with --format {DISTILL.name} or {DISTILLGAN.name}")]


def _changes(source: Path, chosen: ModelFormat) -> dict[str, Any]:
    """Return what is different in the copy: the marker, and metadata with exactly the fields that applications know."""
    payload, _ = read_pickled_dict(source)
    changes: dict[str, Any] = {"format": chosen.marker}
    metadata = payload.get("metadata")
    if [key for key, _ in dict_items(metadata)] != list(METADATA_FIELDS):
        assert isinstance(metadata, dict)  # it could be read
        changes["metadata"] = checked_metadata(metadata, source).to_dict()
    return changes
