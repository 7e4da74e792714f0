"""Opens models and checkpoints the way a conversion does, in worker processes, and tells what it found.

A file that crashes or hangs its reader costs a worker, not the command. Imported by commands that must not
import torch: what needs it is imported where it runs.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pebble import ProcessExpired, ProcessPool

from sda_daemon.conversion import worker
from sda_daemon.conversion.interrupts import held_back, wait_for_first
from sda_daemon.conversion.pool import describe_exit, leave_closed_folder
from sda_daemon.errors import SdaError
from sda_daemon.os_errors import explained, is_refusal
from sda_daemon.settings.schema import ConversionSettings

if TYPE_CHECKING:
    from sda_daemon.models.inspection import Inspection

T = TypeVar("T")


class VerdictKind(StrEnum):
    """What a check found."""

    OK = "ok"
    """It opens, and its weights have the digest that was recorded when it was made."""
    UNRECORDED = "unrecorded"
    """It opens; whoever wrote it recorded no digest."""
    CHANGED = "changed"
    """It opens, but its weights are not the ones that it was made with."""
    BROKEN = "broken"
    """It does not open."""
    UNREADABLE = "unreadable"
    """It may not be read: whether it would open is not known."""
    MISSING = "missing"
    """The index names it, but it is not there."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one file; `reason` is empty where nothing is wrong."""

    path: str
    kind: VerdictKind
    reason: str = ""
    cause: str = ""
    """Static name of what is wrong, from the error's class."""
    recorded_digest: str = ""
    weights_digest: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether the file cannot be used or trusted."""
        return self.kind not in (VerdictKind.OK, VerdictKind.UNRECORDED)


def check_model(path: str) -> Verdict:
    """Open a model completely and compare its weights with the recorded digest. Runs in a worker."""
    worker.warm_up()
    from sda_daemon.models.digest import weights_digest
    from sda_daemon.models.loading import open_model

    try:
        model = open_model(Path(path))
        found = weights_digest(model.weights)
    except SdaError as error:
        return Verdict(path, VerdictKind.BROKEN, str(error), error.kind)
    except FileNotFoundError:
        return Verdict(path, VerdictKind.MISSING, "the file is not there", "missing")
    except OSError as error:
        return _unreadable(path, error)
    recorded = model.provenance.weights_digest
    if not recorded:
        return Verdict(path, VerdictKind.UNRECORDED, weights_digest=found)
    if recorded != found:
        reason = "its weights are not the ones that it was made with"
        return Verdict(path, VerdictKind.CHANGED, reason, "changed", recorded, found)
    return Verdict(path, VerdictKind.OK, "", "", recorded, found)


def check_checkpoint(path: str) -> Verdict:
    """Read a checkpoint the way a conversion does. Runs in a worker."""
    worker.warm_up()
    from sda_daemon.models.checkpoint import read_checkpoint
    from sda_daemon.models.digest import weights_digest

    try:
        digest = weights_digest(read_checkpoint(Path(path)).state_dict)
    except SdaError as error:
        return Verdict(path, VerdictKind.BROKEN, str(error), error.kind)
    except OSError as error:
        return _unreadable(path, error)
    return Verdict(path, VerdictKind.OK, weights_digest=digest)


def _unreadable(path: str, error: OSError) -> Verdict:
    kind = VerdictKind.UNREADABLE if is_refusal(error) else VerdictKind.BROKEN
    reason = explained(error, f"it cannot be read: {error.strerror or error}")
    return Verdict(path, kind, reason, "unreadable")


def check_files(check: Callable[[str], Verdict], paths: Sequence[str], jobs: int = 1) -> Iterator[Verdict]:
    """Yield a verdict for each file, in the order given; a reader that dies or hangs makes its file broken.

    Args:
        check: `check_model` or `check_checkpoint`.
        paths: the files.
        jobs: how many are checked at the same time.
    """

    def broken(path: str, cause: str, reason: str) -> Verdict:
        return Verdict(path, VerdictKind.BROKEN, reason, cause)

    return _apart(check, paths, jobs, broken)


def inspect_apart(path: Path) -> Inspection:
    """Look into a file in a process of its own: whatever it holds costs that one.

    Raises:
        OSError: it cannot be read.
    """
    from sda_daemon.models.inspection import Inspection

    def failed(path: str, _cause: str, reason: str) -> Inspection:
        return Inspection(path, Path(path).stat().st_size, problems=[reason])

    (found,) = _apart(_look, [str(path)], 1, failed)
    if isinstance(found, OSError):
        raise found
    return found


def _look(path: str) -> Inspection | OSError:
    from sda_daemon.models.inspection import inspect_file

    try:
        return inspect_file(Path(path))
    except OSError as error:
        return error


def _apart(
    function: Callable[[str], T], paths: Sequence[str], jobs: int, failed: Callable[[str, str, str], T]
) -> Iterator[T]:
    """Yield what a function tells of each file, called in a worker with the limits that conversions have.

    Args:
        function: called with a path.
        paths: the files.
        jobs: how many workers there are.
        failed: called with path, static cause and reason where a worker died or took too long.
    """
    if not paths:
        return
    limits = ConversionSettings()
    leave_closed_folder()
    pool = ProcessPool(
        max_workers=min(jobs, len(paths)),
        context=multiprocessing.get_context("spawn"),
        initializer=worker.initialize,
        initargs=(limits.memory_limit, os.getpid(), None),
    )
    try:
        with held_back():
            futures = [(path, pool.schedule(function, args=[path], timeout=limits.time_limit_s)) for path in paths]
        for path, future in futures:
            wait_for_first([future])
            try:
                yield future.result()
            except (FutureTimeoutError, TimeoutError):
                yield failed(path, "timeout", f"reading it took longer than {limits.time_limit_s:g} s")
            except ProcessExpired as error:
                yield failed(path, "crashed", f"reading it failed: {describe_exit(error.exitcode)}")
            except MemoryError:
                yield failed(path, "out_of_memory", "it asks for more memory than there is")
            except Exception as error:  # noqa: BLE001 - whatever a reader raises is a verdict on the file
                yield failed(path, "crashed", f"{type(error).__name__}: {error}")
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()
