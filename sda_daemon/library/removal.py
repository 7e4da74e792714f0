"""Deletes model files, and nothing else, whatever an index says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sda_daemon.files import says_gone
from sda_daemon.library.entry import is_bare_model_name


def unlink_models(models_dir: Path, names: Iterable[str]) -> int:
    """Delete model files by bare name; whatever is not a regular model file directly in the folder is let be.

    Returns:
        How many were deleted.

    Raises:
        OSError: one cannot be deleted; the others are.
    """
    folder = os.open(models_dir, os.O_RDONLY | os.O_DIRECTORY)
    removed = 0
    failure: OSError | None = None
    try:
        for name in names:
            if not is_bare_model_name(name):
                continue
            try:
                if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=folder)
                    removed += 1
            except OSError as error:
                failure = failure if failure is not None or says_gone(error) else error
    finally:
        os.close(folder)
    if failure is not None:
        raise failure
    return removed
