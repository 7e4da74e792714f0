"""Puts finished model files into the library: names them, then writes the index once for all of them.

Only the one process that holds the work folder publishes, so that no two conversions of the same weights
can make two models, and nothing that a killed daemon's worker leaves behind ever gets a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from sda_daemon.conversion.job import Converted
from sda_daemon.files import fsync_folder, publish_new, take_access
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.naming import name_apart
from sda_daemon.library.removal import unlink_models
from sda_daemon.models.editing import write_edited
from sda_daemon.models.formats import format_called, format_of_name
from sda_daemon.models.metadata import file_name_candidates


class Action(StrEnum):
    """What became of a finished conversion."""

    ADDED = "added"
    UPDATED = "updated"
    """The same weights, now with analysis: file, id and name are kept."""
    REPLACED = "replaced"
    """Other weights under the same path: the model that was made of it before gave way to this one."""
    DUPLICATE = "duplicate"
    """The library has this model already."""
    AGAIN = "again"
    """The library had this model when the worker looked, and has it no more: it must be converted again."""


@dataclass(frozen=True, slots=True)
class Published:
    """A conversion and what became of it; `entry` is the model's entry in the index, None for AGAIN."""

    converted: Converted
    action: Action
    entry: ModelEntry | None


def publish(
    library: ModelLibrary, finished: Sequence[Converted], replacing: Mapping[str, str] | None = None
) -> list[Published]:
    """Publish finished conversions: files first, then one write of the index.

    Args:
        library: where to.
        finished: what the workers made.
        replacing: checkpoint path to the id of the model that a new one of this path takes the place of.

    Raises:
        OSError: a file or the index cannot be written. New files are taken back, the index is as before;
            the finished files are gone and must be made again.
        LibraryError: the index cannot be read or locked.
    """
    new_files: list[Path] = []
    left: list[str] = []
    try:
        with library.transaction():
            published = [
                _publish_one(library, item, new_files, left, (replacing or {}).get(item.job.path, ""))
                for item in finished
            ]
            if any(item.action in (Action.ADDED, Action.UPDATED, Action.REPLACED) for item in published):
                fsync_folder(library.models_dir)
    except BaseException:
        for path in new_files:
            path.unlink(missing_ok=True)
        raise
    unlink_models(library.models_dir, left)
    return published


def _brings_analysis(item: Converted, known: ModelEntry) -> bool:
    return item.was_written and item.metadata.has_analysis and not known.has_analysis


def _named_apart(library: ModelLibrary, item: Converted, temporary: Path, replaced: ModelEntry | None) -> Converted:
    """Make sure that no other model has the name: one may have come since the worker has looked."""
    name = name_apart(item.metadata, (entry for entry in library.entries() if entry is not replaced))
    if name == item.metadata.name:
        return item
    metadata = replace(item.metadata, name=name)
    renamed = temporary.with_suffix(".named")
    try:
        size_bytes = write_edited(temporary, renamed, metadata.to_dict())
        renamed.replace(temporary)
    finally:
        renamed.unlink(missing_ok=True)
    return replace(item, metadata=metadata, size_bytes=size_bytes)


def _publish_one(
    library: ModelLibrary, item: Converted, new_files: list[Path], left: list[str], replaced_id: str
) -> Published:
    """Publish one model.

    Files that have got a name are added to `new_files`, those that no entry names any more to `left`.
    """
    chosen = format_called(item.format_name)
    temporary = Path(item.job.work_dir) / item.job.temporary_name
    known = library.get(item.metadata.model_id)
    is_there = known is not None and library.holds(known.model_id)
    if known is not None and is_there and not _brings_analysis(item, known):
        if item.was_written:
            temporary.unlink(missing_ok=True)
        return Published(item, Action.DUPLICATE, known)
    if not item.was_written:
        return Published(item, Action.AGAIN, None)
    old = known if known is not None else library.get(replaced_id)
    if known is None:
        item = _named_apart(library, item, temporary, old)
    has_other_ending = old is not None and format_of_name(old.file_path) is not chosen
    if known is not None and has_other_ending:  # it came meanwhile, from somewhere else
        temporary.unlink(missing_ok=True)
        return Published(item, Action.AGAIN, None)
    if old is not None and not has_other_ending:
        target = library.models_dir / old.file_path
        take_access(temporary, target)
        temporary.replace(target)
        action = Action.REPLACED if known is None else Action.UPDATED if is_there else Action.ADDED
        if known is None:
            library.remove(old.model_id)
    else:
        take_access(temporary, library.models_dir / temporary.name)
        target = publish_new(
            temporary, library.models_dir, file_name_candidates(item.plain_name or item.metadata.name, chosen.ending)
        )
        new_files.append(target)
        action = Action.ADDED
        if old is not None:
            library.remove(old.model_id)
            left.append(old.file_path)
            action = Action.REPLACED
    entry = ModelEntry.from_metadata(item.metadata, target.name, item.size_bytes)
    library.add_entry(entry)
    return Published(item, action, entry)
