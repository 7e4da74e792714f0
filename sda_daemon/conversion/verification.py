"""Opens models and checkpoints the way a conversion does, in worker processes, and tells what it found.

A file that crashes or hangs its reader costs a worker, not the command. Imported by commands that must not
import torch: what needs it is imported where it runs.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from sda_daemon.conversion import worker
from sda_daemon.conversion.pool import describe_exit
from sda_daemon.errors import SdaError

TIME_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 16 * 2**30


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
        return self.kind in (VerdictKind.CHANGED, VerdictKind.BROKEN, VerdictKind.MISSING)


def check_model(path: str) -> Verdict:
    """Open a model completely and compare its weights with the recorded digest. Runs in a worker."""
    worker.warm_up()
    from sda_daemon.models.checkpoint import checked_weights
    from sda_daemon.models.digest import weights_digest
    from sda_daemon.models.persistence import load_model
    from sda_daemon.models.torch_file import read_torch_file

    try:
        load_model(Path(path))
        file = read_torch_file(Path(path))
        content = file.content
        weights = checked_weights(content["model_state_dict"], Path(path), file.size_bytes)
        found = weights_digest(weights)
    except SdaError as error:
        return Verdict(path, VerdictKind.BROKEN, str(error), error.kind)
    except FileNotFoundError:
        return Verdict(path, VerdictKind.MISSING, "the file is not there", "missing")
    except OSError as error:
        return Verdict(path, VerdictKind.BROKEN, f"it cannot be read: {error.strerror}", "unreadable")
    provenance = content.get("provenance")
    recorded = provenance.get("weights_digest") if isinstance(provenance, dict) else None
    if not isinstance(recorded, str) or not recorded:
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
        return Verdict(path, VerdictKind.BROKEN, f"it cannot be read: {error.strerror}", "unreadable")
    return Verdict(path, VerdictKind.OK, weights_digest=digest)


def check_files(check: Callable[[str], Verdict], paths: Sequence[str], jobs: int = 1) -> Iterator[Verdict]:
    """Yield a verdict for each file, in the order given; a reader that dies or hangs makes its file broken.

    Args:
        check: `check_model` or `check_checkpoint`.
        paths: the files.
        jobs: how many are checked at the same time.
    """
    if not paths:
        return
    pool = ProcessPool(
        max_workers=min(jobs, len(paths)),
        context=multiprocessing.get_context("spawn"),
        initializer=worker.initialize,
        initargs=(MEMORY_LIMIT_BYTES, os.getpid(), None),
    )
    try:
        futures = [(path, pool.schedule(check, args=[path], timeout=TIME_LIMIT_S)) for path in paths]
        for path, future in futures:
            yield _verdict(path, future)
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _verdict(path: str, future: Future[Verdict]) -> Verdict:
    broken = Verdict(path, VerdictKind.BROKEN)
    try:
        return future.result()
    except (FutureTimeoutError, TimeoutError):
        return replace(broken, reason=f"reading it took longer than {TIME_LIMIT_S:g} s", cause="timeout")
    except ProcessExpired as error:
        return replace(broken, reason=f"reading it failed: {describe_exit(error.exitcode)}", cause="crashed")
    except Exception as error:  # noqa: BLE001 - whatever a reader raises is a verdict on the file
        return replace(broken, reason=f"{type(error).__name__}: {error}", cause="crashed")
