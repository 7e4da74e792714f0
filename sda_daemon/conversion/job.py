"""The messages between the daemon and its workers. Pure, frozen and picklable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sda_daemon.errors import LibraryReadOnlyError, LibraryUnreadableError
from sda_daemon.models.formats import SDA
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.models.playability import Trouble
from sda_daemon.settings.schema import MetadataSettings, RuleSettings
from sda_daemon.signature import FileSignature

REFUSED_KINDS = frozenset({"permission", "read_only", LibraryReadOnlyError.kind, LibraryUnreadableError.kind})
"""Kinds of failures that say: this may not be read or written, by owner and permissions or a read-only mount."""


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """One checkpoint to convert, with everything a worker needs to know.

    Attributes:
        path: the checkpoint.
        signature: of the content that was decided on; another content is not converted under this job.
        watch_root: the watched folder that it lies in, empty for none.
        models_dir: the library, for a look at what is there already.
        work_dir: folder in the same file system for the finished file.
        temporary_name: what to call the finished file there; empty to only look at the checkpoint (a dry run).
        metadata: templates.
        rules: what is different for some checkpoints.
        by_daemon: whether the daemon makes the model, which it may then prune or replace by itself.
        is_watched: whether `watch_root` is a watched folder, and not just one that someone has named.
        instead_of: id of the model that gives way to the new one and leaves it its name; empty for none.
        models_format: what the model is to be written in, as far as no rule says otherwise.
    """

    path: str
    signature: FileSignature
    watch_root: str
    models_dir: str
    work_dir: str
    temporary_name: str
    metadata: MetadataSettings
    rules: tuple[RuleSettings, ...] = ()
    by_daemon: bool = False
    is_watched: bool = True
    instead_of: str = ""
    models_format: str = SDA.name


@dataclass(frozen=True, slots=True)
class Sliders:
    """A copy of another program's model file, in the work folder, that has the sliders which that one lacks.

    Attributes:
        file: name of the model's file.
        before: signature of the content that was copied.
        temporary: path of the copy.
        n_active_components: how many sliders there are.
        size_bytes: of the copy.
    """

    file: str
    before: FileSignature
    temporary: str
    n_active_components: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Converted:
    """A finished model file in the work folder, or the news that the library has this model already.

    Attributes:
        job: what it was made by.
        metadata: what is inside the file.
        size_bytes: of the file; 0 if none was written because the library has this model already.
        weights_digest: the model's identity.
        source_digest: tells the checkpoint's content from any other.
        dropped: (key, foreign name) of values left out.
        duration_s: time from the start of the conversion to the finished file.
        ignored_notes: (path, reason) of `sda.yaml` files, and of a sidecar, that could not be used.
        plain_name: the model's name without what tells it from another of that name; its file is called after it.
        format_name: what it is written in.
        troubles: what the application that opens it will not play right.
        twin_id: id of the model of the same weights that another program has saved; empty where none was seen.
        sliders: of that model, which lacked them.
        no_sliders: why they cannot be added to it, or to this program's own model; empty if they can, or need not be.
    """

    job: ConversionJob
    metadata: ModelMetadata
    size_bytes: int
    weights_digest: str
    source_digest: str
    dropped: tuple[tuple[str, str], ...]
    duration_s: float
    ignored_notes: tuple[tuple[str, str], ...] = ()
    plain_name: str = ""
    format_name: str = SDA.name
    troubles: tuple[Trouble, ...] = ()
    twin_id: str = ""
    sliders: Sliders | None = None
    no_sliders: str = ""

    @property
    def was_written(self) -> bool:
        """Whether there is a file to publish."""
        return self.size_bytes > 0


@dataclass(frozen=True, slots=True)
class Failed:
    """A conversion that did not work.

    Attributes:
        job: what was tried.
        kind: short static name of the cause, from the error's class.
        permanent: whether trying again is pointless until the file changes.
        message: what happened and what to do.
        is_crash: whether the worker died or hung, rather than reported the failure itself.
    """

    job: ConversionJob
    kind: str
    permanent: bool
    message: str
    is_crash: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """What a conversion would give.

    Attributes:
        job: what was looked at.
        metadata: what would be inside the model file.
        sources: for each field that templates give, where that came from; see `rules.Named`.
        facts: what templates know.
        skip: why it would not be converted; empty if it would.
        ignored_notes: (path, reason) of `sda.yaml` files, and of a sidecar, that could not be used.
        known_as: name and file of the model that the library has of these weights; empty for none.
        format_name: what it would be written in.
        troubles: what the application that opens it would not play right.
    """

    job: ConversionJob
    metadata: ModelMetadata
    sources: Mapping[str, str]
    facts: Mapping[str, Any]
    skip: str
    ignored_notes: tuple[tuple[str, str], ...]
    known_as: str
    format_name: str
    troubles: tuple[Trouble, ...]


Outcome = Converted | Failed


@dataclass(frozen=True, slots=True)
class WorkerFree:
    """A worker is done with a job; its model is on the way to the disk, or the failure to the loop."""

    job: ConversionJob


@dataclass(frozen=True, slots=True)
class JobDone:
    """A conversion has ended, and its file is on the disk."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    """A worker process, or a library in it, has printed something."""

    text: str
