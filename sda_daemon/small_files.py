"""Reading what lies beside checkpoints and models, and what others may have put in its place.

Sidecars, notes, indexes, configs, presets and memories are small regular files. A pipe would be waited for, a device
would fill the memory: neither is ever read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOT_REGULAR = "it is no regular file"
_KERNELS_OWN = ("/proc", "/sys")
"""Where the kernel makes up what is read: such files say nothing of their size, and some never end."""


def read_small_file(path: Path, max_bytes: int) -> bytes:
    """Return a file's content; links are followed, and nothing is waited for.

    Raises:
        OSError: it is missing, no regular file, larger than `max_bytes`, or cannot be read.
    """
    return read_with_status(path, max_bytes)[0]


def read_with_status(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return a file's content, and the status that it had when it had been read.

    Raises:
        OSError: see `read_small_file`.
    """
    descriptor = _open(path)
    try:
        if why := _why_not_regular(os.fstat(descriptor)):
            raise OSError(errno.EINVAL, why, str(path))
        if os.fstat(descriptor).st_size > max_bytes:  # 2 GB of holes are not even begun
            raise _too_large(path, max_bytes)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise _too_large(path, max_bytes)
        return content, os.fstat(descriptor)
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> None:
    """Make sure that a regular file is at a path, or nothing: what is to be opened by others must not be a pipe.

    Raises:
        OSError: it is something else.
    """
    try:
        status = os.stat(path)
    except OSError:
        return  # nothing, or it cannot be told: whoever opens it says why
    if why := _why_not_regular(status):
        raise OSError(errno.EINVAL, why, str(path))


def is_deeper_than(value: Any, levels: int) -> bool:
    """Tell whether lists and dicts lie in each other more than so many levels deep."""
    waiting: list[Iterator[Any]] = [iter((value,))]
    while waiting:
        item = next(waiting[-1], waiting)
        if item is waiting:
            waiting.pop()
        elif isinstance(item, dict | list):
            if len(waiting) > levels:
                return True
            waiting.append(iter(item.values() if isinstance(item, dict) else item))
    return False


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV):  # a socket, or a device that is not there
            raise
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path)) from error


def _why_not_regular(status: os.stat_result) -> str:
    """Return what else something is; empty for a regular file."""
    if stat.S_ISDIR(status.st_mode):
        return "it is a folder, not a file"
    return "" if stat.S_ISREG(status.st_mode) and status.st_dev not in _kernels_own_devices() else NOT_REGULAR


def _kernels_own_devices() -> set[int]:
    here = os.stat("/").st_dev
    found = set()
    for folder in _KERNELS_OWN:
        try:
            found.add(os.stat(folder).st_dev)
        except OSError:  # none on this system
            continue
    return found - {here}


def _too_large(path: Path, max_bytes: int) -> OSError:
    limit = f"{max_bytes >> 20} MB" if max_bytes >= 2**20 else f"{max_bytes >> 10} kB"
    return OSError(errno.EFBIG, f"it is larger than {limit}", str(path))
