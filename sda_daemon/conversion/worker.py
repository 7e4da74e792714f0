"""What runs in a worker process: one checkpoint in, one finished file in the work folder out.

This module is imported by the daemon too, which must not import torch: everything that needs it is
imported when it is called.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sda_daemon.conversion.job import ConversionJob, Converted, Failed, Outcome, Preview, Sliders
from sda_daemon.conversion.placing import format_for, library_at, place_of, twin_of
from sda_daemon.conversion.sidecar import Sidecar, read_sidecar
from sda_daemon.errors import (
    ChangedWhileReadError,
    CheckpointError,
    ForeignEntryError,
    ModelFileError,
    SdaError,
    TemplateError,
)
from sda_daemon.files import fsync_large
from sda_daemon.models.provenance import Provenance, root_digest
from sda_daemon.os_errors import describe, explained, kind_of, sandbox_hint
from sda_daemon.signature import FileSignature
from sda_daemon.wording import LONGEST_VALUE, shortened

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from sda_daemon.library import ModelEntry
    from sda_daemon.models.checkpoint import Checkpoint
    from sda_daemon.models.metadata import ModelMetadata

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_READ_ONLY_HINT = "The file system is mounted read-only, or a sandbox forbids writing there"


def initialize(memory_limit: int | None, parent: int, output: Connection | None) -> None:
    """Prepare a fresh worker process: it ends with its parent, leaves Ctrl-C to it, and prints into `output`."""
    if output is not None:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before we asked to be told
    if memory_limit is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_limit if hard == resource.RLIM_INFINITY else min(memory_limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def warm_up() -> None:
    """Import torch, so that the first conversion need not wait for it."""
    import torch

    import sda_daemon.models.persistence  # noqa: F401

    torch.set_num_threads(1)  # workers run beside each other; the work is reading and hashing


def convert(job: ConversionJob) -> Outcome:
    """Convert one checkpoint. Never raises: whatever goes wrong is told in the result."""
    return _told(job, _convert)


def preview(job: ConversionJob) -> Preview | Failed:
    """Tell what a conversion would give. Never raises, like `convert`."""
    return _told(job, _preview)


def _told(job: ConversionJob, what: Callable[[ConversionJob], T]) -> T | Failed:
    told = _tried(job, what)
    if isinstance(told, Failed):  # a message may quote what is in a file
        return replace(told, message=shortened(told.message, LONGEST_VALUE))
    return told


def _tried(job: ConversionJob, what: Callable[[ConversionJob], T]) -> T | Failed:
    try:
        warm_up()
        return what(job)
    except (CheckpointError, TemplateError, ForeignEntryError) as error:
        return Failed(job, error.kind, True, str(error))
    except SdaError as error:
        return Failed(job, error.kind, False, str(error))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not Path(job.path).exists():
            return Failed(job, "vanished", True, f"{job.path} is gone")
        return _failed_by_system(job, error)
    except MemoryError:
        return Failed(job, "out_of_memory", False, f"not enough memory to convert {job.path}", is_crash=True)
    except Exception as error:  # noqa: BLE001 - a bug of ours must cost an attempt, not the worker
        return Failed(job, "bug", False, f"{type(error).__name__}: {error}", is_crash=True)


def _failed_by_system(job: ConversionJob, error: OSError) -> Failed:
    kind = kind_of(error)
    hint = sandbox_hint(error) or (_READ_ONLY_HINT if kind == "read_only" else "")
    if hint:
        return Failed(job, kind, False, f"{describe(error)}. {hint}")
    again = "; it is tried again by itself" if job.by_daemon else ""
    return Failed(job, kind, False, explained(error) + again)


def make_durable(outcome: Outcome) -> Outcome:
    """Wait until a finished file is on the disk; whatever goes wrong is told in the result.

    Called by the process that has the workers, so that these need not wait for the disk.
    """
    if isinstance(outcome, Converted) and outcome.was_written:
        try:
            fsync_large(Path(outcome.job.work_dir) / outcome.job.temporary_name)
        except OSError as error:
            return _failed_by_system(outcome.job, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must cost an attempt, not all that come later
            return Failed(outcome.job, "bug", False, f"{type(error).__name__}: {error}")
    return outcome


def _convert(job: ConversionJob) -> Converted | Failed:
    from sda_daemon.models.checkpoint import read_checkpoint
    from sda_daemon.models.digest import model_id_of, weights_digest
    from sda_daemon.models.persistence import complete_metadata, parts_of, utc_now, write_parts
    from sda_daemon.settings.notes import read_notes
    from sda_daemon.settings.rules import name_checkpoint, template_digest

    began = time.perf_counter()
    path = Path(job.path)
    _check_unchanged(job)
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError:
        _check_unchanged(job)  # what is being rewritten looks damaged, but only for now
        raise
    digest = weights_digest(checkpoint.state_dict)
    root = Path(job.watch_root) if job.watch_root else None
    sidecar = read_sidecar(path)
    facts = facts_of(checkpoint, sidecar, root, is_watched=job.is_watched)
    notes, ignored_notes = read_notes(path, root)
    named = name_checkpoint(job.metadata, job.rules, notes, facts)
    if named.skip:
        return Failed(job, "skipped", True, named.skip)
    metadata = complete_metadata(named.metadata, checkpoint, path.stat().st_mtime)
    metadata = replace(metadata, model_id=model_id_of(digest), save_date=utc_now())
    place = place_of(job, metadata, checkpoint, named.models_format or job.models_format, digest)
    metadata = place.metadata
    size_bytes = 0
    if place.is_wanted and job.temporary_name:
        provenance = Provenance(
            source_file=path.name,
            source_path=str(facts["relpath"]),
            source_mtime_ns=job.signature.mtime_ns,
            source_root=root_digest(job.watch_root) if job.watch_root else "",
            made_by_daemon=place.by_daemon,
            source_size_bytes=job.signature.size_bytes,
            source_digest=checkpoint.source_digest,
            weights_digest=digest,
            template_digest=template_digest(job.metadata, job.rules),
            words_digest=place.words,
            converted_at=metadata.save_date,
        )
        temporary = Path(job.work_dir) / job.temporary_name
        parts, marker = parts_of(checkpoint), place.format.marker
        size_bytes = write_parts(temporary, parts, metadata, provenance, marker, place.further)
        try:
            _check_unchanged(job)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sliders, no_sliders = _sliders_for(place.twin, job, checkpoint, metadata)
    duration_s = time.perf_counter() - began
    ignored = (*sidecar.ignored, *ignored_notes, *named.ignored_notes)
    return Converted(
        job,
        metadata,
        size_bytes,
        digest,
        checkpoint.source_digest,
        checkpoint.dropped,
        duration_s,
        ignored,
        place.plain_name,
        place.format.name,
        place.troubles,
        place.twin.model_id if place.twin is not None else "",
        sliders,
        no_sliders or place.no_sliders,
    )


def _sliders_for(
    twin: ModelEntry | None, job: ConversionJob, checkpoint: Checkpoint, metadata: ModelMetadata
) -> tuple[Sliders | None, str]:
    """Write a copy of another program's model with the sliders that it lacks; or tell why that cannot be."""
    from sda_daemon.controls.serialization import analysis_to_dict
    from sda_daemon.conversion.digests import write_sliders
    from sda_daemon.library.weights import brings_sliders
    from sda_daemon.models.header import read_model_header

    if twin is None or checkpoint.analysis is None or not job.temporary_name:
        return None, ""
    path = Path(job.models_dir) / twin.file_path
    temporary = Path(job.work_dir) / f"{job.temporary_name}.sliders"
    try:
        if not brings_sliders(metadata, read_model_header(path).metadata):
            return None, ""
        return write_sliders(path, temporary, analysis_to_dict(checkpoint.analysis)), ""
    except FileNotFoundError:
        return None, ""  # it is gone: whoever publishes finds that, too
    except ModelFileError as error:
        return None, str(error)


def _preview(job: ConversionJob) -> Preview:
    from sda_daemon.library.naming import name_apart
    from sda_daemon.models.checkpoint import read_checkpoint
    from sda_daemon.models.digest import model_id_of, weights_digest
    from sda_daemon.models.persistence import complete_metadata, utc_now
    from sda_daemon.settings.notes import read_notes
    from sda_daemon.settings.rules import name_checkpoint

    path = Path(job.path)
    root = Path(job.watch_root) if job.watch_root else None
    checkpoint = read_checkpoint(path)
    sidecar = read_sidecar(path)
    facts = facts_of(checkpoint, sidecar, root, is_watched=job.is_watched)
    notes, ignored = read_notes(path, root)
    named = name_checkpoint(job.metadata, job.rules, notes, facts)
    metadata = complete_metadata(named.metadata, checkpoint, path.stat().st_mtime)
    digest = weights_digest(checkpoint.state_dict)
    metadata = replace(metadata, model_id=model_id_of(digest), save_date=utc_now())
    library = library_at(job.models_dir) if Path(job.models_dir).is_dir() else None
    known = library.get(metadata.model_id) if library is not None else None
    known = known or (twin_of(job.models_dir, digest) if library is not None else None)
    if library is not None and known is None:
        metadata = replace(metadata, name=name_apart(metadata, library.entries()))
    known_as = f"{known.name} ({known.file_path})" if known else ""
    chosen, found = format_for(job, checkpoint, named.models_format or job.models_format)
    ignored_notes = (*sidecar.ignored, *ignored, *named.ignored_notes)
    return Preview(job, metadata, named.sources, facts, named.skip, ignored_notes, known_as, chosen.name, found)


def _check_unchanged(job: ConversionJob) -> None:
    if FileSignature.of(os.stat(job.path)) != job.signature:
        raise ChangedWhileReadError(f"{job.path} has changed since it settled", "Its new content is tried next")


def _printable(path: Path) -> Path:
    """A path without what is not UTF-8 in it: names of models must be text for everyone."""
    return Path(os.fsencode(path).decode("utf-8", "replace"))


def facts_of(
    checkpoint: Checkpoint, sidecar: Sidecar, watch_root: Path | None, *, is_watched: bool = True
) -> dict[str, Any]:
    """Return what templates can use of a checkpoint and its sidecar; see `checkpoint_facts`."""
    from sda_daemon.templates import checkpoint_facts

    status = checkpoint.path.stat()
    analysis = checkpoint.analysis
    labels = [] if analysis is None else analysis.component_labels
    return checkpoint_facts(
        _printable(checkpoint.path),
        watch_root and _printable(watch_root),
        size_bytes=status.st_size,
        mtime_s=status.st_mtime,
        now=datetime.now(UTC),
        host=socket.gethostname(),
        content={
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "train_loss": checkpoint.train_loss,
            "val_loss": checkpoint.val_loss,
            "kl_weight": checkpoint.kl_weight,
            "latent_dim": checkpoint.layout.latent_dim,
            "training": checkpoint.training_config,
            "spectrogram": checkpoint.spectrogram_config.to_dict(),
            "analysis": analysis and {"n_active_components": analysis.n_active_components, "labels": labels},
            "sidecar": sidecar.content,
        },
        is_watched=is_watched,
    )
