"""Taking a model's file out of the library."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sda_daemon.errors import LibraryError, ModelExistsError, UnknownModelError
from sda_daemon.files import says_gone, write_atomic
from sda_daemon.library.batches import title
from sda_daemon.library.entry import ModelEntry, is_bare_model_name
from sda_daemon.wording import quoted

_CHUNK_BYTES = 1 << 20


def model_path(models_dir: Path, entry: ModelEntry) -> Path:
    """Return the path of an entry's file.

    Raises:
        UnknownModelError: there is no such file.
        LibraryError: the entry leads out of the folder; such a path is never followed.
    """
    if not is_bare_model_name(entry.file_path):
        raise LibraryError(
            f"the entry of {quoted(title(entry))} names {quoted(entry.file_path)}, which is no file of the library",
            "Run: sda-daemon models repair",
        )
    path = models_dir / entry.file_path
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except OSError as error:
        if not says_gone(error):
            raise
        is_file = False
    if not is_file:
        raise UnknownModelError(f"the file of {quoted(title(entry))} is gone: {path}", "Run: sda-daemon models repair")
    return path


def free_target(source: Path, to: Path, name: str, *, replace: bool) -> Path:
    """Return where a model goes that is copied into a folder, or to a file name.

    Args:
        source: its file.
        to: the folder or the file name.
        name: what it is called in a folder.
        replace: whether it may take the place of a file that is there.

    Raises:
        LibraryError: the folder is not there.
        ModelExistsError: a file is there already that may not be replaced.
    """
    target = to / name if to.is_dir() else to
    if not target.parent.is_dir():
        raise LibraryError(f"there is no folder {target.parent}", "Make it first")
    if target.exists() and (not replace or target.samefile(source)):
        hint = "It is the model itself" if target.samefile(source) else "Choose another name, or add --force"
        raise ModelExistsError(f"there is a file {target} already", hint)
    return target


def export(models_dir: Path, entry: ModelEntry, to: Path, *, replace: bool = False) -> Path:
    """Copy a model's file into a folder or to a file name, atomically; return where it is now.

    Raises:
        UnknownModelError, LibraryError: see `model_path`; the folder to copy into is not there.
        ModelExistsError: a file is there already, and `replace` was not asked for.
        OSError: it cannot be read or written; nothing is left behind.
    """
    source = model_path(models_dir, entry)
    target = free_target(source, to, entry.file_path, replace=replace)
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 - a descriptor
        write_atomic(target, iter(lambda: file.read(_CHUNK_BYTES), b""))
    return target
