"""Puts finished model files into the library: names them, then writes the index once for all of them.

Only the one process that holds the work folder publishes, so that no two conversions of the same weights
can make two models, and nothing that a killed daemon's worker leaves behind ever gets a name.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from sda_daemon.access import take_access
from sda_daemon.conversion.job import Converted, Failed, Sliders
from sda_daemon.errors import SdaError
from sda_daemon.files import fsync_folder, publish_new
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.editing import write_called
from sda_daemon.library.entry import ModelEntry, check_entry
from sda_daemon.library.naming import name_apart
from sda_daemon.library.removal import unlink_models
from sda_daemon.library.said import said_by
from sda_daemon.library.weights import Weights, brings_sliders, find_twin
from sda_daemon.models.formats import format_called, format_of_name
from sda_daemon.models.metadata import file_name_candidates
from sda_daemon.os_errors import is_refusal, takes_nothing, with_hint
from sda_daemon.signature import FileSignature
from sda_daemon.wording import LONGEST_VALUE, shortened


class Action(StrEnum):
    """What became of a finished conversion."""

    ADDED = "added"
    UPDATED = "updated"
    """The same weights, now with analysis: file, id and name are kept, whichever program has made it."""
    REPLACED = "replaced"
    """Other weights under the same path: the model that was made of it before gave way to this one."""
    DUPLICATE = "duplicate"
    """The library has this model already, or another program has saved one of the same weights there."""
    AGAIN = "again"
    """The library had this model when the worker looked, and has it no more: it must be converted again."""
    FAILED = "failed"
    """It could not be put into the library, for a reason of its own; its file is gone."""


@dataclass(frozen=True, slots=True)
class Published:
    """A conversion and what became of it.

    `entry` is the model's entry in the index, None for AGAIN and FAILED; `error` is why it failed.
    """

    converted: Converted
    action: Action
    entry: ModelEntry | None
    error: Exception | None = None


def publish(
    library: ModelLibrary, finished: Sequence[Converted], replacing: Mapping[str, str] | None = None
) -> list[Published]:
    """Publish finished conversions: files first, then one write of the index.

    Each of them alone: one that cannot be published (its file has vanished, its place is taken by a folder, …) has
    FAILED and keeps no other from being published. A full disk is the affair of all of them.

    Args:
        library: where to.
        finished: what the workers made.
        replacing: checkpoint path to the id of the model that a new one of this path takes the place of.

    Raises:
        OSError: the disk is full or read-only, or the index cannot be written. New files are taken back, the index is
            as before; the finished files are gone and must be made again.
        LibraryError: the index cannot be read or locked.
    """
    new_files: list[Path] = []
    left: list[str] = []
    try:
        with library.transaction():
            published = [
                _publish_alone(library, item, new_files, left, (replacing or {}).get(item.job.path, ""))
                for item in finished
            ]
            if any(item.action in (Action.ADDED, Action.UPDATED, Action.REPLACED) for item in published):
                fsync_folder(library.models_dir)
    except BaseException:
        for path in (*new_files, *(_temporary_of(item) for item in finished if item.was_written)):
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    unlink_models(library.models_dir, left)
    return published


def _publish_alone(
    library: ModelLibrary, item: Converted, new_files: list[Path], left: list[str], replaced_id: str
) -> Published:
    """Publish one conversion, or tell why that is not possible.

    Raises:
        OSError: for a reason that concerns all of them.
    """
    try:
        return _publish_one(library, item, new_files, left, replaced_id)
    except Exception as error:
        if isinstance(error, OSError) and takes_nothing(error):
            raise
        with contextlib.suppress(OSError):
            _temporary_of(item).unlink(missing_ok=True)
        return Published(item, Action.FAILED, None, error)


def failure_of(item: Published) -> Failed:
    """Return what became of a conversion that could not be published, as a failed attempt."""
    error = item.error
    message = shortened("" if error is None else with_hint(error), LONGEST_VALUE)
    if isinstance(error, OSError) and is_refusal(error):
        return Failed(item.converted.job, "permission", False, message)
    if isinstance(error, OSError | SdaError):
        return Failed(item.converted.job, "cannot_publish", False, message)
    return Failed(item.converted.job, "bug", False, f"{type(error).__name__}: {message}", is_crash=True)


def _temporary_of(item: Converted) -> Path:
    return Path(item.job.work_dir) / item.job.temporary_name


def _named_apart(library: ModelLibrary, item: Converted, temporary: Path, replaced: ModelEntry | None) -> Converted:
    """Make sure that no other model has the name: one may have come since the worker has looked."""
    name = name_apart(item.metadata, (entry for entry in library.entries() if entry is not replaced))
    if name == item.metadata.name:
        return item
    metadata = replace(item.metadata, name=name)
    renamed = temporary.with_suffix(".named")
    try:
        size_bytes = write_called(temporary, renamed, metadata)
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
    temporary = _temporary_of(item)
    known = library.get(item.metadata.model_id)
    is_there = known is not None and library.holds(known.model_id)
    twin = _with_twin(library, item, is_there=is_there)
    is_news = known is not None and is_there and item.was_written and brings_sliders(item.metadata, known)
    if twin is not None and not is_news:
        if item.was_written:
            temporary.unlink(missing_ok=True)
        return twin
    if known is not None and is_there and not is_news:
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
    if old is not None and not has_other_ending and not _is_another_content(library, old):
        entry = _entry_of(library, item, old.file_path)
        target = library.models_dir / old.file_path
        take_access(temporary, target)
        temporary.replace(target)
        action = Action.REPLACED if known is None else Action.UPDATED if is_there else Action.ADDED
    else:
        plain_name = item.plain_name or item.metadata.name
        entry = _entry_of(library, item, next(file_name_candidates(plain_name, chosen.ending)))
        take_access(temporary, library.models_dir / temporary.name)
        names = file_name_candidates(plain_name, chosen.ending, item.metadata.model_id)
        target = publish_new(temporary, library.models_dir, names)
        new_files.append(target)
        entry = replace(entry, file_path=target.name)
        action = Action.ADDED if old is None or known is not None else Action.REPLACED
    if known is None and old is not None:
        library.remove(old.model_id)
        if has_other_ending:
            left.append(old.file_path)
    library.add_entry(entry, said=said_by(item.metadata))
    library.weights.learn(Weights(target.name, FileSignature.of(target.lstat()), item.weights_digest, is_own=True))
    return Published(item, action, entry)


def _is_another_content(library: ModelLibrary, entry: ModelEntry) -> bool:
    """Tell whether another file is in a model's place than its entry says: that is not ours to write over."""
    try:
        status = (library.models_dir / entry.file_path).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and not library.holds(entry.model_id)


def _entry_of(library: ModelLibrary, item: Converted, name: str) -> ModelEntry:
    """Return the entry of a model, once it is certain that the index can hold it: files cannot be taken back.

    Raises:
        ValueError: no index can hold it.
        ForeignEntryError: something of another program stands under its id in the index.
    """
    entry = ModelEntry.from_metadata(item.metadata, name, item.size_bytes)
    check_entry(entry)
    library.check_free(entry.model_id)
    return entry


def _with_twin(library: ModelLibrary, item: Converted, *, is_there: bool) -> Published | None:
    """Tell what becomes of a conversion whose weights another program has saved; None where there is no such model.

    Args:
        library: where to.
        item: the conversion. Sliders that the other model lacks are given to it.
        is_there: whether this program's own model of these weights is there, too.
    """
    twin = find_twin(library, item.weights_digest)
    if twin is not None and item.sliders is not None and item.sliders.file == twin.file_path:
        better = give_sliders(library, twin, item.sliders)
        return Published(item, Action.AGAIN if better is None else Action.UPDATED, better)
    if item.sliders is not None:
        Path(item.sliders.temporary).unlink(missing_ok=True)
    if twin is None:
        return None
    is_unseen = item.twin_id != twin.model_id and library.weights.is_saved
    if brings_sliders(item.metadata, twin) and is_unseen and not is_there:
        return Published(item, Action.AGAIN, None)  # it was not known when the worker looked
    return Published(item, Action.DUPLICATE, twin)


def give_sliders(library: ModelLibrary, entry: ModelEntry, sliders: Sliders) -> ModelEntry | None:
    """Put a copy of a model's file that has sliders into its place; return its new entry.

    The id, the name and everything else that the index says of it stay. None if the file has changed meanwhile, or is
    gone: the copy is gone then, too.

    Raises:
        LibraryError, OSError: the index cannot be changed, or the file not be replaced.
    """
    path, temporary = library.models_dir / entry.file_path, Path(sliders.temporary)
    with library.transaction():
        current = library.get(entry.model_id)
        try:
            is_same = FileSignature.of(path.lstat()) == sliders.before
        except FileNotFoundError:
            is_same = False
        if current is None or current.file_path != path.name or not is_same:
            temporary.unlink(missing_ok=True)
            return None
        known = library.weights.of_content(sliders.before)
        temporary.replace(path)
        fsync_folder(library.models_dir)
        better = replace(
            current,
            file_size_bytes=sliders.size_bytes,
            has_analysis=True,
            n_active_components=sliders.n_active_components,
            tags=list(current.tags),
        )
        library.add_entry(better)
        if known is not None:
            library.weights.learn(replace(known, signature=FileSignature.of(path.lstat())))
    return better
