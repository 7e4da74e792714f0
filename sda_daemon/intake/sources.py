"""What becomes of a checkpoint once its model is safely in the library: deleted or moved, where that is wanted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from sda_daemon.files import fsync_folder

SIDECAR_ENDING = ".meta.json"


def delete_source(path: Path) -> None:
    """Delete a checkpoint and its sidecar.

    Raises:
        OSError: it cannot be deleted.
    """
    path.unlink()
    with contextlib.suppress(FileNotFoundError):
        path.with_name(path.name + SIDECAR_ENDING).unlink()


def move_source(path: Path, root: Path, move_to: Path) -> Path:
    """Move a checkpoint and its sidecar below `move_to`, keeping the path below `root`; return its new place.

    A file that is there already is never replaced: the moved one gets a number.

    Raises:
        OSError: it cannot be moved; it is still where it was.
    """
    relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    wanted = move_to / relative
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target = wanted
    for number in range(1, 10_000):
        if not target.exists():
            break
        target = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
    _move(path, target)
    sidecar = path.with_name(path.name + SIDECAR_ENDING)
    if sidecar.exists():
        with contextlib.suppress(OSError):
            _move(sidecar, target.with_name(target.name + SIDECAR_ENDING))
    return target


def _move(source: Path, target: Path) -> None:
    """Rename, or copy durably and delete where the target is on another file system."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    temporary = target.with_name(f".{target.name}.part")
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)
    source.unlink()
