"""One daemon per folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from sda_daemon.errors import AlreadyRunningError, CannotWriteError
from sda_daemon.os_errors import sandbox_hint
from sda_daemon.small_files import check_regular

INSTANCE_LOCK_NAME = ".sda-daemon.lock"
LOOK_S = 0.5
"""How long a starting daemon waits for the lock: `status` holds it for a moment when it looks."""


@contextlib.contextmanager
def instance_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this daemon alone.

    Raises:
        AlreadyRunningError: another daemon holds it.
        CannotWriteError: it cannot be locked.
    """
    place = folder / INSTANCE_LOCK_NAME
    lock = FileLock(place, timeout=LOOK_S, mode=0o666)  # others who share the folder may look
    try:
        check_regular(place)
    except OSError as error:
        raise CannotWriteError(f"{place} cannot be locked: {error.strerror}", "Move away what has its name") from error
    try:
        lock.acquire()
    except Timeout as error:
        raise AlreadyRunningError(
            f"another daemon is at work on {folder}", "Stop it first, or use another models_dir and state_dir"
        ) from error
    except OSError as error:
        hint = sandbox_hint(error, folder) or "Check its owner and permissions"
        raise CannotWriteError(f"{folder} cannot be locked: {error.strerror}", hint) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Tell whether a daemon holds a folder, also to those who may read its lock file and not write it.

    Raises:
        OSError: they may not even read it, or it is no file.
    """
    check_regular(folder / INSTANCE_LOCK_NAME)
    try:
        descriptor = os.open(folder / INSTANCE_LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_at_work(models_dir: Path, state_dir: Path) -> bool:
    """Tell whether a daemon runs on these folders: one whose models folder is lost holds its state folder alone.

    Raises:
        OSError: see `is_locked`.
    """
    return is_locked(models_dir) or is_locked(state_dir)


def make_folder(folder: Path, key: str) -> None:
    """Make a configured folder if it is not there.

    Raises:
        CannotWriteError: it cannot be made; the message names the key.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = sandbox_hint(error, folder) or "Check the path and its permissions"
        raise CannotWriteError(f"{key} {folder} cannot be made: {error.strerror}", hint) from error
