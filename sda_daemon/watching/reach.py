"""Tells a folder that is not there yet from one that can never be watched, and one folder from another."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sda_daemon.os_errors import sandbox_hint


def why_unwatchable(folder: Path) -> str:
    """Return why a folder cannot be watched and will not be by waiting; empty if it can, or if it may yet appear."""
    try:
        status = os.stat(folder)
        if not stat.S_ISDIR(status.st_mode):
            return "it is not a folder"
        with os.scandir(folder):
            return ""
    except FileNotFoundError as error:
        return sandbox_hint(error, folder)
    except NotADirectoryError:
        return "a part of its path is not a folder"
    except OSError as error:
        hint = sandbox_hint(error, folder)
        return f"{error.strerror}. {hint}" if hint else str(error.strerror)


def folder_identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a folder, None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if Path(path).is_dir() else None
