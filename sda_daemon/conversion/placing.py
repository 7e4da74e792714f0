"""Where a new model goes: what the library has of it already, and in which format it is written.

Runs in a worker process; the supervising process only ever names what is here. What needs torch is imported when it is
called.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sda_daemon.conversion.job import ConversionJob
from sda_daemon.errors import CheckpointError, ForeignEntryError, ModelFileError
from sda_daemon.models.formats import OWN_KEYS, ModelFormat, format_of_name
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.models.playability import LibraryUse, Trouble, choose_format, troubles

if TYPE_CHECKING:
    from sda_daemon.library import ModelEntry, ModelLibrary
    from sda_daemon.library.weights import KnownWeights
    from sda_daemon.models.checkpoint import Checkpoint
    from sda_daemon.models.header import ModelHeader


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new model goes.

    Attributes:
        metadata: what it is called there.
        format: what it is written in.
        troubles: what the application that opens it will not play right.
        by_daemon: whether the model is the daemon's own.
        plain_name: the model's name without what tells it from another of that name.
        is_wanted: whether a file is to be written at all.
        further: what other programs have put into the file whose place it takes, by key.
        words: digest of the words that no person has given; see `library.touched`.
        twin: the model of the same weights that another program has saved under an id of its own.
        no_sliders: why the sliders that the checkpoint brings cannot be had in the library; empty if they can, or need
            not be.
    """

    metadata: ModelMetadata
    format: ModelFormat
    troubles: tuple[Trouble, ...]
    by_daemon: bool
    plain_name: str
    is_wanted: bool = True
    further: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    twin: ModelEntry | None = None
    no_sliders: str = ""


def place_of(job: ConversionJob, metadata: ModelMetadata, checkpoint: Checkpoint, wanted: str, digest: str) -> Place:
    """Look into the library and tell where a model goes.

    Args:
        job: what is converted.
        metadata: what the model is called if it is new, its id included.
        checkpoint: what it is made of.
        wanted: the format that is asked for.
        digest: of its weights.

    Raises:
        ForeignEntryError: something of another program stands in the index under the model's id.
        LibraryError, OSError: the library cannot be read.
    """
    from sda_daemon.library.index import is_mentioned
    from sda_daemon.library.naming import name_apart
    from sda_daemon.library.touched import words_digest
    from sda_daemon.library.weights import brings_sliders

    known, plain_name, twin = None, metadata.name, twin_of(job.models_dir, digest)
    if is_mentioned(Path(job.models_dir), metadata.model_id, metadata.name):
        library = library_at(job.models_dir)
        _check_free(library, metadata.model_id)
        known = library.get(metadata.model_id)
        if known is None:
            others = (entry for entry in library.entries() if entry.model_id != job.instead_of)
            metadata = replace(metadata, name=name_apart(metadata, others))
    if twin is not None and (known is None or not library.holds(known.model_id)):
        theirs = format_of_name(twin.file_path) or format_for(job, checkpoint, wanted)[0]
        return Place(metadata, theirs, (), job.by_daemon, plain_name, is_wanted=False, twin=twin)
    if known is None:
        chosen, found = format_for(job, checkpoint, wanted)
        return Place(metadata, chosen, found, job.by_daemon, plain_name, words=words_digest(metadata))
    chosen = format_of_name(known.file_path) or format_for(job, checkpoint, wanted)[0]
    header = _header_of(library, known)
    kept = _keep_words(metadata, known)
    place = Place(
        metadata=kept,
        format=chosen,
        troubles=_troubles(chosen, checkpoint),
        by_daemon=job.by_daemon and (header is None or bool(header.origin.made_by_daemon)),
        plain_name=plain_name,
        words=words_digest(kept) if header is None else _words_of(known, header, kept),
        twin=twin,
    )
    if not library.holds(known.model_id):
        return place
    if not brings_sliders(metadata, known):
        return replace(place, is_wanted=False)
    further = _further_keys(library.models_dir / known.file_path)
    if further is None:
        reason = f"{known.file_path} has something of another program in it that cannot be written into another file"
        return replace(place, is_wanted=False, no_sliders=reason)
    return replace(place, further=further)


def _check_free(library: ModelLibrary, model_id: str) -> None:
    if any(entry.key == model_id for entry in library.foreign()):
        raise ForeignEntryError(
            f"the index has something under the id {model_id} that this program does not understand",
            "Look at it with: sda-daemon models repair --dry-run",
        )


def format_for(job: ConversionJob, checkpoint: Checkpoint, wanted: str) -> tuple[ModelFormat, tuple[Trouble, ...]]:
    """Choose what a new model is written in; also return what the application that opens it will not play right."""

    def use() -> LibraryUse:
        if not Path(job.models_dir).is_dir():
            return LibraryUse()
        library = library_at(job.models_dir)
        return LibraryUse(library.index_version, [entry.file_path for entry in library.list_all()])

    chosen, why_not = choose_format(wanted, checkpoint.decoder_activation, checkpoint.trained_by, use)
    found = _troubles(chosen, checkpoint)
    return chosen, found if why_not is None else (why_not, *found)


def _troubles(chosen: ModelFormat, checkpoint: Checkpoint) -> tuple[Trouble, ...]:
    sounds = checkpoint.spectrogram_config
    columns = checkpoint.layout.columns
    return tuple(troubles(chosen, checkpoint.decoder_activation, columns, sounds.sample_rate, sounds.hop_length))


@lru_cache(maxsize=4)
def _open_library(models_dir: str) -> ModelLibrary:
    from sda_daemon.library import ModelLibrary

    return ModelLibrary(Path(models_dir))


def library_at(models_dir: str) -> ModelLibrary:
    """Return the library of a folder as it is now; a worker opens each once."""
    library = _open_library(models_dir)
    library.refresh()
    return library


def twin_of(models_dir: str, digest: str) -> ModelEntry | None:
    """Return the model of these weights that another program has saved in a library; see `library.weights`."""
    from sda_daemon.library.weights import find_twin

    if not _weights_at(models_dir).of_digest(digest):
        return None
    return find_twin(library_at(models_dir), digest)


@lru_cache(maxsize=4)
def _weights_at(models_dir: str) -> KnownWeights:
    from sda_daemon.library.weights import KnownWeights

    return KnownWeights(Path(models_dir))


def _header_of(library: ModelLibrary, known: ModelEntry) -> ModelHeader | None:
    """Return what the file of a model says that is brought up to date; None if it cannot be read.

    A model made by hand stays that, and so do the words that a person has given.
    """
    from sda_daemon.models.header import read_model_header

    try:
        return read_model_header(library.models_dir / known.file_path)
    except (ModelFileError, OSError):
        return None


def _words_of(known: ModelEntry, header: ModelHeader, kept: ModelMetadata) -> str:
    """Return the digest of the words that no person has given: the one that was recorded, once a person has."""
    from sda_daemon.library.touched import BY_A_PERSON, is_touched, words_digest

    if is_touched(known, header.metadata, header.origin, header.mtime_ns):
        return header.origin.words_digest or BY_A_PERSON
    return words_digest(kept)


def _keep_words(metadata: ModelMetadata, known: ModelEntry) -> ModelMetadata:
    """Keep what a person may have changed since the model was first made, but for what no file can hold."""
    from sda_daemon.library.said import WORDS
    from sda_daemon.models.header import readable_fields

    kept = readable_fields({name: getattr(known, name) for name in WORDS})
    return replace(metadata, **kept)


def _further_keys(path: Path) -> dict[str, Any] | None:
    """Return what other programs have put into a model's file, by key; None if it cannot be put into another one."""
    from sda_daemon.models.torch_file import read_torch_file

    try:
        content = read_torch_file(path, leave_out=lambda whole: [key for key in whole if key in OWN_KEYS]).content
    except (CheckpointError, OSError):
        return {}  # there is nothing to be had of it
    if not isinstance(content, dict):
        return {}
    further = {key: value for key, value in content.items() if key not in OWN_KEYS}
    return further if _is_writable(further) else None


def _is_writable(value: Any) -> bool:
    """Tell whether a value is made of what any program can open."""
    import numpy as np
    from torch import Tensor

    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item
        elif item is not None and not isinstance(item, str | int | float | bytes | Tensor | np.ndarray | np.generic):
            return False
    return True
